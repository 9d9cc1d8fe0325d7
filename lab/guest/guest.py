"""One guest for tests: boot it, run commands in it as root by SSH, cut its power; nothing stays."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from waagent.lab.fabric.control import RemoteFabric
from waagent.lab.fabric.values import LabError
from waagent.lab.guest.image import Image
from waagent.lab.machine.addresses import VM
from waagent.lab.machine.machine import Completed
from waagent.lab.tools import checkout, run_tool

BOOT_LIMIT_S = 400.0  # 20 s on a quiet machine
RESOURCE_DISK_BYTES = 96 << 20
_SSH = (
    "ssh",
    "-q",
    *("-o", "BatchMode=yes"),
    *("-o", "StrictHostKeyChecking=no"),
    *("-o", "UserKnownHostsFile=/dev/null"),
    *("-o", "ConnectTimeout=10"),
    *("-o", "ConnectionAttempts=5"),
    *("-o", "ServerAliveInterval=15"),
)


class Guest:
    """A booted guest and its platform. Invariant: what it consists of lives in namespaces that end
    with the one process started here.
    """

    def __init__(self, folder: Path, image: Image, dvd: Path) -> None:
        """``folder`` takes its disks; ``dvd`` lies in the drive. Returns once SSH answers."""
        self.folder, self._image = folder, image
        run_tool(["cp", "--sparse=always", image.disk, folder / "disk.raw"], deadline_s=120)
        with open(folder / "resource.raw", "wb") as disk:
            disk.truncate(RESOURCE_DISK_BYTES)
        order = {"folder": str(folder), "image": str(image.folder), "dvd": str(dvd.resolve())}
        (folder / "tenant").mkdir()
        with open(folder / "surroundings.log", "wb") as log:
            self._surroundings = subprocess.Popen(
                [
                    *("unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child"),
                    *("--mount-proc", sys.executable, "-m", "waagent.lab.guest.surroundings"),
                    json.dumps(order),
                ],
                cwd=checkout(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self.fabric = RemoteFabric(folder / "fabric")
        try:
            self._expect("up")
            self.boot()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it at once, platform and all."""
        assert self._surroundings.stdin is not None and self._surroundings.stdout is not None
        self._surroundings.stdin.close()
        try:
            self._surroundings.wait(20)
        except subprocess.TimeoutExpired:
            self._surroundings.kill()
            self._surroundings.wait(20)
        self._surroundings.stdout.close()

    def boot(self) -> None:
        """Power on, after `cut` too; returns once SSH answers."""
        self._tell("boot")
        self.await_ssh()

    def cut(self) -> None:
        """A power cut: what was not on the disk is lost."""
        self._tell("cut")

    def reboot(self) -> None:
        """An orderly reboot; returns once SSH answers in the new boot."""
        before = self.boot_id()
        self.run("systemctl reboot")
        self.wait_for(lambda: self.boot_id() not in ("", before), "a new boot", BOOT_LIMIT_S)

    def boot_id(self) -> str:
        """The kernel's id of this boot; empty while nobody answers."""
        return self.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def await_ssh(self) -> None:
        """Wait until root can log in."""
        self.wait_for(lambda: self.run("true").status == 0, "SSH", BOOT_LIMIT_S)

    def run(self, script: str, *, stdin: bytes = b"", deadline_s: float = 120.0) -> Completed:
        """Run a shell text in the guest as root; 255 when there is no connection."""
        return self.ssh(self._image.key, "root", script, stdin=stdin, deadline_s=deadline_s)

    def must(self, script: str, *, stdin: bytes = b"", deadline_s: float = 300.0) -> str:
        """stdout of a shell text that must succeed. Raises LabError with its words."""
        done = self.run(script, stdin=stdin, deadline_s=deadline_s)
        if done.status != 0:
            said = (done.stderr or done.stdout)[-2000:]
            raise LabError(f"ended with {done.status}", script[:200], said or "it said nothing")
        return done.stdout

    def ssh(
        self, key: Path, user: str, script: str, *, stdin: bytes = b"", deadline_s: float = 120.0
    ) -> Completed:
        """Run a shell text in the guest as ``user``, who logs in by ``key``."""
        argv = ["nsenter", f"--net=/proc/{self._surroundings.pid}/ns/net", *_SSH, "-i", str(key)]
        try:
            done = subprocess.run(
                [*argv, f"{user}@{VM}", script],
                input=stdin,
                capture_output=True,
                timeout=deadline_s,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as late:
            return Completed(255, _text(late.stdout), f"{_text(late.stderr)}[{deadline_s:.0f} s]")
        return Completed(done.returncode, _text(done.stdout), _text(done.stderr))

    def unpack(self, tarball: bytes) -> None:
        """Unpack a tar over the guest's root; links survive, unlike with scp."""
        self.must("tar -x -z -C / -f -", stdin=tarball)

    def wait_for(self, is_true: Callable[[], bool], what: str, deadline_s: float = 180.0) -> None:
        """Wait for a fact. Raises LabError with the console's end when it does not come true."""
        ends_at = time.monotonic() + deadline_s
        while not is_true():
            if time.monotonic() > ends_at or self._surroundings.poll() is not None:
                raise LabError(f"{what} did not come", f"after {deadline_s:.0f} s", self.trouble())
            time.sleep(0.5)

    def trouble(self) -> str:
        """The ends of console and logs, for the message of a test that failed."""
        parts = []
        for name in ("surroundings.log", "qemu.log", "console.log"):
            path = self.folder / name
            text = path.read_text("utf-8", "replace")[-1500:] if path.exists() else ""
            plain = re.sub(r"[^ -~\n]", "", text)
            parts.append(f"--- {name}\n{plain}")
        return "\n".join(parts)

    def _tell(self, word: str) -> None:
        assert self._surroundings.stdin is not None
        self._surroundings.stdin.write(f"{word}\n".encode())
        self._surroundings.stdin.flush()
        self._expect(word)

    def _expect(self, word: str) -> None:
        stream = self._surroundings.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], 60.0)
        line = stream.readline().decode().strip() if ready else ""
        if line != word:
            raise LabError(f"the guest's platform said {line!r}, not {word}", "", self.trouble())


def stage(folder: Path, python: str = "/usr/bin/python3") -> bytes:
    """The agent installed as `setup.py install --root` does, as a tar for a guest that has the same
    Python as this machine.
    """
    run_tool(
        [python, "setup.py", "install", "--root", folder, "--init-system", "systemd"],
        cwd=checkout(),
        deadline_s=600,
    )
    return run_tool(["tar", "-c", "-z", "-C", folder, "-f", "-", "."], deadline_s=120)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
