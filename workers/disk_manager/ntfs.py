"""Whether an NTFS volume holds nothing but what the platform put there. Read block by block, never
mounted: it works where the kernel has no NTFS, and not a byte of the volume changes.

Every file of NTFS has records in the master file table, which says of itself where it lies. A
volume is fresh when each record in use belongs to NTFS itself (numbers below 24, and what lies in
`$Extend`), to the folder `System Volume Information`, or is the platform's warning file. Anything
that is not understood (a broken record, a volume that was not unmounted) is no proof.
Source: the on-disk format as described by the Linux kernel's fs/ntfs3/ntfs.h.
"""

from __future__ import annotations

import os
import struct

from waagent.protocol.base.records import Record
from waagent.workers.disk_manager.disk_error import NotBlank

ROOT_RECORD, EXTEND_RECORD, FIRST_USER_RECORD, VOLUME_RECORD = 5, 11, 24, 3
ALLOWED_FOLDERS = ("system volume information",)
ALLOWED_FILES = ("dataloss_warning_readme.txt",)
_FILE_NAME, _DATA, _VOLUME_INFORMATION, _END = 0x30, 0x80, 0x70, 0xFFFFFFFF
_IN_USE = 1
_DIRTY = 1
_RECORDS_LIMIT = 65536  # a fresh volume has 256 of them; 64 MiB is the most that is read
_SECTOR = 512  # of the update sequence, whatever the disk's sectors are


class Volume(Record):
    """Where things lie, from the boot sector."""

    cluster_bytes: int
    record_bytes: int
    mft_at: int


class Entry(Record):
    """A file or folder, by one of its names."""

    number: int
    parent: int
    name: str


def assert_fresh(descriptor: int, start_bytes: int, size_bytes: int) -> None:
    """Return when the NTFS volume at that place of the open disk is fresh. Raises NotBlank, which
    names the first thing that speaks against it.
    """
    reader = _Reader(descriptor, start_bytes, size_bytes)
    try:
        entries = read_entries(reader)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise _refused(f"its structure is not understood ({error})") from error
    stranger = first_stranger(entries)
    if stranger is not None:
        raise _refused(f"there is {ascii(stranger)} on it")


def first_stranger(entries: list[Entry]) -> str | None:
    """The name of the first entry that the platform did not make; None when there is none."""
    allowed = {EXTEND_RECORD}
    allowed |= {
        entry.number
        for entry in entries
        if entry.parent == ROOT_RECORD and entry.name.lower() in ALLOWED_FOLDERS
    }
    by_number = {entry.number: entry for entry in entries}
    for entry in entries:
        if entry.number in allowed:
            continue
        if entry.parent == ROOT_RECORD and entry.name.lower() in ALLOWED_FILES:
            continue
        seen: set[int] = set()
        at = entry
        while at.parent not in allowed:
            if at.parent in seen or at.parent not in by_number:
                return entry.name
            seen.add(at.parent)
            at = by_number[at.parent]
    return None


def read_entries(reader: _Reader) -> list[Entry]:
    """All files and folders that are not NTFS's own. Raises NotBlank, struct.error, ValueError."""
    volume = _boot_sector(reader.at(0, 512))
    table = _attributes(_record(reader.at(volume.mft_at, volume.record_bytes), 0))
    runs = [(at, length) for kind, body in table if kind == _DATA for at, length in _runs(body)]
    per_record = volume.record_bytes
    total = sum(length for _, length in runs) * volume.cluster_bytes // per_record
    if not runs or total > _RECORDS_LIMIT:
        raise _refused(f"its file table has {total} records")
    entries: list[Entry] = []
    number = 0
    for first, length in runs:
        data = reader.at(first * volume.cluster_bytes, length * volume.cluster_bytes)
        for at in range(0, len(data) - per_record + 1, per_record):
            entries += _entries_of(data[at : at + per_record], number)
            number += 1
    return entries


def _entries_of(raw: bytes, number: int) -> list[Entry]:
    if raw[:4] != b"FILE":
        if number >= FIRST_USER_RECORD and raw[:4] == b"\0\0\0\0":
            return []  # never used
        raise _refused(f"record {number} of its file table is broken")
    if not struct.unpack_from("<H", raw, 0x16)[0] & _IN_USE:
        return []
    attributes = _attributes(_record(raw, number))
    if number == VOLUME_RECORD:
        flags = next(body for kind, body in attributes if kind == _VOLUME_INFORMATION)
        if struct.unpack_from("<H", _resident(flags), 10)[0] & _DIRTY:
            raise _refused("it was not unmounted")
    if number < FIRST_USER_RECORD:
        return []
    base = struct.unpack_from("<Q", raw, 0x20)[0]
    if base & 0xFFFFFFFFFFFF:
        return []  # a continuation; its base is looked at
    names = [_resident(body) for kind, body in attributes if kind == _FILE_NAME]
    if not names:
        raise _refused(f"record {number} of its file table has no name")
    return [
        Entry(
            number,
            struct.unpack_from("<Q", body, 0)[0] & 0xFFFFFFFFFFFF,
            body[0x42 : 0x42 + 2 * body[0x40]].decode("utf-16-le", "replace"),
        )
        for body in names
        if body[0x41] != 2  # the DOS form of a name that is there in full
    ]


def _boot_sector(sector: bytes) -> Volume:
    if sector[3:11] != b"NTFS    " or sector[510:512] != b"\x55\xaa":
        raise _refused("it has no NTFS boot sector")
    sector_bytes, per_cluster = struct.unpack_from("<HB", sector, 0x0B)
    clusters = per_cluster if per_cluster <= 0x80 else 1 << (256 - per_cluster)
    record = struct.unpack_from("<b", sector, 0x40)[0]
    cluster_bytes = sector_bytes * clusters
    record_bytes = 1 << -record if record < 0 else record * cluster_bytes
    if not (256 <= sector_bytes <= 4096 and cluster_bytes and 512 <= record_bytes <= 65536):
        raise _refused("its boot sector is not understood")
    return Volume(
        cluster_bytes, record_bytes, struct.unpack_from("<Q", sector, 0x30)[0] * cluster_bytes
    )


def _record(raw: bytes, number: int) -> bytes:
    """A record with its update sequence undone: the last two bytes of each sector stand apart."""
    if raw[:4] != b"FILE":
        raise _refused(f"record {number} of its file table is broken")
    at, count = struct.unpack_from("<HH", raw, 4)
    fixed = bytearray(raw)
    mark = raw[at : at + 2]
    for index in range(1, count):
        end = index * _SECTOR
        if raw[end - 2 : end] != mark:
            raise _refused(f"record {number} of its file table was half written")
        fixed[end - 2 : end] = raw[at + 2 * index : at + 2 * index + 2]
    return bytes(fixed)


def _attributes(record: bytes) -> list[tuple[int, bytes]]:
    """(kind, the attribute whole) of a record."""
    found = []
    at = struct.unpack_from("<H", record, 0x14)[0]
    while struct.unpack_from("<I", record, at)[0] != _END:
        kind, length = struct.unpack_from("<II", record, at)
        if length < 16 or at + length > len(record):
            raise ValueError(f"attribute of {length} bytes")
        found.append((kind, record[at : at + length]))
        at += length
    return found


def _resident(attribute: bytes) -> bytes:
    if attribute[8]:
        raise ValueError("an attribute lies elsewhere")
    length, offset = struct.unpack_from("<IH", attribute, 0x10)
    return attribute[offset : offset + length]


def _runs(attribute: bytes) -> list[tuple[int, int]]:
    """(first cluster, clusters) of an attribute that lies elsewhere."""
    if not attribute[8]:
        raise ValueError("the file table lies in itself")
    runs = []
    at = struct.unpack_from("<H", attribute, 0x20)[0]
    place = 0
    while at < len(attribute) and attribute[at]:
        lengths, places = attribute[at] & 15, attribute[at] >> 4
        if not lengths or not places:
            raise ValueError("the file table has holes")
        length = int.from_bytes(attribute[at + 1 : at + 1 + lengths], "little")
        at += 1 + lengths
        place += int.from_bytes(attribute[at : at + places], "little", signed=True)
        at += places
        runs.append((place, length))
    return runs


class _Reader:
    """The bytes of a volume. Invariant: never reads outside of it."""

    def __init__(self, descriptor: int, start_bytes: int, size_bytes: int) -> None:
        self._descriptor, self._start, self._size = descriptor, start_bytes, size_bytes

    def at(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > self._size:
            raise ValueError("it points outside of itself")
        data = b""
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), self._start + offset + len(data))
            if not more:
                raise ValueError("it ends early")
            data += more
        return data


def _refused(why: str) -> NotBlank:
    return NotBlank(
        f"its NTFS volume is not a fresh one of the platform: {why}",
        "resource disk",
        "it is left as it is; save what is on it and wipe it (wipefs -a) to have it formatted",
    )
