"""A loop device over a file, released by the kernel when the last descriptor is closed, however we
end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from pathlib import Path

from waagent.lab.fabric.values import LabError

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR, _PARTITIONS = 1, 4, 8
_MAJOR = 7
_FLAGS_OFFSET = 4 + 4 + 52  # loop_config: fd, block_size, then loop_info64 with lo_flags at 52
_CONFIG_BYTES = 4 + 4 + 232 + 64
_PATIENCE_S = 60.0


class Loop:
    """Invariant: bound exactly as long as `descriptor` (or whoever else opened the device) is
    open.
    """

    def __init__(self, descriptor: int, number: int) -> None:
        self.descriptor = descriptor
        self.number = number
        self.device = os.makedev(_MAJOR, number)


def bind(image: Path, folder: Path, *, read_only: bool = True, partitions: bool = False) -> Loop:
    """Bind the first free loop device to ``image``; its node is made in ``folder`` for the moment
    of opening it.

    ``partitions``: the device may have some. Raises LabError when there is none. Two that look for
    a free one at the same time take turns.
    """
    backing = os.open(image, os.O_RDONLY if read_only else os.O_RDWR)
    end = time.monotonic() + _PATIENCE_S
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0) | (_PARTITIONS if partitions else 0)
    try:
        while True:
            loop = _try_bind(backing, folder, flags)
            if loop is not None:
                return loop
            if time.monotonic() > end:
                raise LabError("no free loop device", "/dev/loop-control", "see losetup --list")
            time.sleep(0.02)
    except OSError as error:
        raise LabError(
            "a loop device could not be made",
            str(error),
            "the lab needs CAP_SYS_ADMIN and the loop driver",
        ) from error
    finally:
        os.close(backing)


def _try_bind(backing: int, folder: Path, flags: int) -> Loop | None:
    control = os.open("/dev/loop-control", os.O_RDWR)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)
    node = folder / f"loop{number}"
    os.mknod(node, 0o600 | 0o060000, os.makedev(_MAJOR, number))
    try:
        descriptor = os.open(node, os.O_RDONLY if flags & _READ_ONLY else os.O_RDWR)
    finally:
        node.unlink()
    configuration = bytearray(_CONFIG_BYTES)
    struct.pack_into("=I", configuration, 0, backing)
    struct.pack_into("=I", configuration, _FLAGS_OFFSET, flags)
    try:
        fcntl.ioctl(descriptor, _LOOP_CONFIGURE, bytes(configuration))
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EBUSY:
            return None
        raise
    os.set_inheritable(descriptor, False)
    return Loop(descriptor, number)
