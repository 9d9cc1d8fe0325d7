"""Tells Hyper-V's host how provisioning ended, by a record in the guest's key-value pool.

The second way beside the WireServer: it works without a network. The pool is a file of records of
2,560 bytes, which the kernel's daemon (hv_kvp_daemon) hands on to the host; where it has no folder
nothing is said. Writers lock the whole file: cloud-init with flock, the daemon with fcntl, so both
are taken. Source: the kernel's tools/hv/hv_kvp_daemon.c and include/uapi/linux/hyperv.h; the form
of the report is cloud-init's.
"""

from __future__ import annotations

import csv
import datetime
import errno
import fcntl
import io
import os
import time

from waagent.distro.paths import Paths

POOL = "/var/lib/hyperv/.kvp_pool_1"  # what the guest tells its host
KEY = "PROVISIONING_REPORT"
KEY_BYTES, VALUE_BYTES = 512, 2048
RECORD_BYTES = KEY_BYTES + VALUE_BYTES
_VALUE_LIMIT = 1022  # the host gets it as UTF-16 with a NUL in fields of the same size
_REASON_LIMIT = 700
_RECORDS_LIMIT = 1024
_CLOCK_SLACK_S = 60.0  # the first NTP synchronisation moves what counts as boot time
_LOCK_LIMIT_S = 2.0
_HELP = "https://aka.ms/linuxprovisioningerror"


def report(vm_id: str, agent: str, reason: str, now: datetime.datetime) -> str:
    """The encoded report; an empty ``reason`` is success."""
    fields = [f"result={'error' if reason else 'success'}"]
    if reason:
        fields.append(f"reason={' '.join(reason.split())[:_REASON_LIMIT]}")
    fields += [f"agent={agent}", "pps_type=None", f"vm_id={vm_id}"]
    fields.append(f"timestamp={now.isoformat(timespec='seconds')}")
    if reason:
        fields.append(f"documentation_url={_HELP}")
    text = io.StringIO()
    csv.writer(text, delimiter="|", lineterminator="").writerow(fields)
    return text.getvalue()


def record(key: str, value: str) -> bytes:
    """One record; a value that is too long for the host is cut."""
    return key.encode("utf-8")[: KEY_BYTES - 1].ljust(KEY_BYTES, b"\0") + _cut(value).encode(
        "utf-8"
    ).ljust(VALUE_BYTES, b"\0")


def _cut(value: str) -> str:
    cut = value[:_VALUE_LIMIT]
    while len(cut.encode("utf-8")) > VALUE_BYTES - 1:
        cut = cut[:-1]
    return cut


def read_records(data: bytes) -> list[tuple[str, str]]:
    """The records of a pool, in their order."""
    found = []
    for at in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        key = data[at : at + KEY_BYTES].partition(b"\0")[0]
        value = data[at + KEY_BYTES : at + RECORD_BYTES].partition(b"\0")[0]
        found.append((key.decode("utf-8", "replace"), value.decode("utf-8", "replace")))
    return found


def tell_host(paths: Paths, value: str, boot_time: float) -> bool:
    """Append the report, unless it is the last one already; False where the host cannot be told.

    A pool of an earlier boot (``boot_time``: seconds since the epoch) is emptied first. Raises
    OSError.
    """
    pool = paths.under(POOL)
    if not pool.parent.is_dir():
        return False
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(pool, flags, 0o644)
    try:
        _lock(descriptor)
        facts = os.fstat(descriptor)
        if facts.st_mtime < boot_time - _CLOCK_SLACK_S:
            os.ftruncate(descriptor, 0)
        # by this descriptor: closing another one of the file would give the fcntl lock away
        data = os.pread(descriptor, _RECORDS_LIMIT * RECORD_BYTES, 0)
        said = [text for key, text in read_records(data) if key == KEY]
        if said and _without_time(said[-1]) == _without_time(_cut(value)):
            return True
        if len(data) >= _RECORDS_LIMIT * RECORD_BYTES:
            raise OSError(errno.ENOSPC, "the pool is full", str(pool))
        os.write(descriptor, record(KEY, value))
    finally:
        os.close(descriptor)
    return True


def _without_time(value: str) -> list[str]:
    return [field for field in value.split("|") if not field.startswith("timestamp=")]


def _lock(descriptor: int) -> None:
    end = time.monotonic() + _LOCK_LIMIT_S
    for lock in (fcntl.flock, fcntl.lockf):
        while True:
            try:
                lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                break
