"""Random bytes of the host for the kernel: Hyper-V hands them over in the ACPI table OEM0.

The table is a header of 36 bytes, the same on each VM, and then the random ones. Kernels from 6.9
on take them by themselves and leave zeros (`ms_hyperv_late_init`). They are mixed in, never
counted as entropy: the kernel is not told to believe them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.distro.paths import Paths

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

TABLE = "/sys/firmware/acpi/tables/OEM0"
RANDOM = "/dev/urandom"
HEADER_BYTES = 36
SMALLEST_BYTES = HEADER_BYTES + 8
LIMIT_BYTES = HEADER_BYTES + 4096

TAKEN, ALREADY, ABSENT = "entropy taken", "entropy taken by the kernel", ""


def payload_of(table: bytes) -> bytes | None:
    """The random bytes of a table; None when it is too short to hold any; empty when they were
    taken already.
    """
    if len(table) < SMALLEST_BYTES:
        return None
    payload = table[HEADER_BYTES:LIMIT_BYTES]
    return payload if any(payload) else b""


def take(paths: Paths, log: Log) -> str:
    """Give the host's random bytes to the kernel; what to say of it, empty when there are none."""
    try:
        with paths.under(TABLE).open("rb") as file:
            table = file.read(LIMIT_BYTES)
    except OSError:
        return ABSENT  # another host, or FreeBSD
    payload = payload_of(table)
    if payload is None:
        log.warning("ACPI table OEM0 has only %d bytes: no entropy in it: none needed", len(table))
        return ABSENT
    if not payload:
        return ALREADY
    try:
        with paths.under(RANDOM).open("wb", buffering=0) as device:
            device.write(payload)
    except OSError as error:
        log.warning("the host's entropy was not taken: %s: none needed", error)
        return ""
    log.info("gave the kernel %d bytes of the host's entropy", len(payload))
    return TAKEN
