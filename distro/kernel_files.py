"""Small files of the kernel (`/proc`, `/sys`, cgroups): read whole, written in one call."""

from __future__ import annotations

import errno
import os


def read(file: str) -> str | None:
    """The text of a small file; None when it is not here, or went away."""
    try:
        with open(file, "rb", buffering=0) as opened:
            return opened.readall().decode("utf-8", "surrogateescape")
    except OSError:
        return None


def write(file: str, text: str) -> None:
    """Write one value in one call. Raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        if error.errno != errno.ESRCH:  # the process we moved ended meanwhile
            raise
    finally:
        os.close(descriptor)


def try_write(file: str, text: str) -> bool:
    """`write`, and whether the kernel took it."""
    try:
        write(file, text)
    except OSError:
        return False
    return True
