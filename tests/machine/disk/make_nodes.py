"""Runs in the machine: what udev does for partitions. Watches /sys and keeps their nodes in /dev."""

from __future__ import annotations

import contextlib
import glob
import os
import time


def main() -> None:
    """Until killed."""
    while True:
        there = {}
        for path in glob.glob("/sys/block/loop*/loop*p*/dev"):
            try:
                with open(path, encoding="ascii") as file:
                    major, minor = map(int, file.read().split(":"))
            except OSError:
                continue
            there[os.path.basename(os.path.dirname(path))] = os.makedev(major, minor)
        for node in glob.glob("/dev/loop*p*"):
            with contextlib.suppress(FileNotFoundError):  # the test removes them, too
                if there.get(os.path.basename(node)) != os.stat(node).st_rdev:
                    os.unlink(node)
        for name, number in there.items():
            with contextlib.suppress(FileExistsError):
                os.mknod(f"/dev/{name}", 0o660 | 0o060000, number)
        time.sleep(0.01)


if __name__ == "__main__":
    main()
