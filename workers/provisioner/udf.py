"""Reads one file at the top of a UDF disc: the few structures that this takes, nothing more.

Hardened kernels have no udf, and pycdlib reads UDF only beside ISO9660. Read are plain partitions
(UDF 1.02 to 2.01, as the platform and most tools write discs); a metadata or virtual partition is
refused by name. What the disc says is believed nowhere: every length and place is checked against
the image. Source: ECMA-167 parts 3 and 4 (OSTA UDF 1.02).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

SECTOR = 2048
_ANCHORS = (256, 512)
_ANCHOR, _PARTITION, _LOGICAL_VOLUME, _TERMINATOR = 2, 5, 6, 8
_FILE_SET, _IDENTIFIER, _FILE, _EXTENDED_FILE = 256, 257, 261, 266
_DESCRIPTORS_LIMIT = 64
_FOLDER_LIMIT_BYTES = 1024 * 1024
_EXTENTS_LIMIT = 1024
_IS_FOLDER, _IS_DELETED, _IS_PARENT = 2, 4, 8
_SHORT, _LONG, _EMBEDDED = 0, 1, 3


class UdfError(Exception):
    """No UDF that can be read; the text says why."""


class Volume:
    """A mounted disc, so to say. Invariant: nothing beyond ``size_bytes`` is asked for."""

    def __init__(self, disc: BinaryIO) -> None:
        """Find the partition and the file set. Raises UdfError."""
        self._disc = disc
        self._size_bytes = disc.seek(0, 2)
        self._partitions: dict[int, tuple[int, int]] = {}
        """Number -> first sector, sectors."""
        self._maps: list[int] = []
        self._root = b""
        volume = self._find_descriptors()
        if struct.unpack_from("<I", volume, 212)[0] != SECTOR:
            raise UdfError("blocks of another size than 2048")
        self._read_maps(volume)
        file_set = self._at(volume[248:264])
        if _kind_of(file_set) != _FILE_SET:
            raise UdfError("no file set")
        self._root = file_set[400:416]

    def read_file(self, name: str, limit_bytes: int) -> bytes | None:
        """The file of that name at the top, capital letters or not; None when there is none. Raises
        UdfError.
        """
        folder = self._content(self._at(self._root), _FOLDER_LIMIT_BYTES)
        for found, entry in _entries(folder):
            if found.lower() == name.lower():
                return self._content(self._at(entry), limit_bytes)
        return None

    def _find_descriptors(self) -> bytes:
        for place in (*_ANCHORS, self._size_bytes // SECTOR - 257, self._size_bytes // SECTOR - 1):
            anchor = self._sector(place)
            if _kind_of(anchor) != _ANCHOR:
                continue
            for at in (16, 24):  # the main sequence, and its reserve
                length, first = struct.unpack_from("<II", anchor, at)
                volume = self._descriptors(first, length // SECTOR)
                if volume is not None and self._partitions:
                    return volume
        raise UdfError("no volume of UDF")

    def _descriptors(self, first: int, count: int) -> bytes | None:
        volume = None
        for place in range(first, first + min(count, _DESCRIPTORS_LIMIT)):
            sector = self._sector(place)
            kind = _kind_of(sector)
            if kind == _PARTITION:
                number = struct.unpack_from("<H", sector, 22)[0]
                start, sectors = struct.unpack_from("<II", sector, 188)
                self._partitions[number] = (start, sectors)
            elif kind == _LOGICAL_VOLUME:
                volume = sector
            elif kind == _TERMINATOR:
                break
        return volume

    def _read_maps(self, volume: bytes) -> None:
        at = 440
        for _ in range(min(struct.unpack_from("<I", volume, 268)[0], 8)):
            kind, length = volume[at], volume[at + 1]
            if kind != 1 or length != 6:
                name = volume[at + 5 : at + 28].rstrip(b"\0").decode("ascii", "replace")
                raise UdfError(f"a partition of another kind ({name})")
            self._maps.append(struct.unpack_from("<H", volume, at + 4)[0])
            at += length

    def _sector(self, number: int) -> bytes:
        """One sector; zeros beyond the end."""
        if number < 0 or (number + 1) * SECTOR > self._size_bytes:
            return bytes(SECTOR)
        self._disc.seek(number * SECTOR)
        return self._disc.read(SECTOR).ljust(SECTOR, b"\0")

    def _block(self, reference: int, block: int) -> int:
        """The sector of a block of the partition that ``reference`` means."""
        if reference >= len(self._maps) or self._maps[reference] not in self._partitions:
            raise UdfError("a partition that is not there")
        start, sectors = self._partitions[self._maps[reference]]
        if block >= sectors:
            raise UdfError("a place outside of its partition")
        return start + block

    def _at(self, long_ad: bytes) -> bytes:
        """The descriptor that a long allocation descriptor points at."""
        _, block, reference = struct.unpack_from("<IIH", long_ad)
        return self._sector(self._block(reference, block))

    def _content(self, entry: bytes, limit_bytes: int) -> bytes:
        """The bytes of the file that ``entry`` describes."""
        kind = _kind_of(entry)
        if kind not in (_FILE, _EXTENDED_FILE):
            raise UdfError("no file entry where one belongs")
        header = 176 if kind == _FILE else 216
        size_bytes = struct.unpack_from("<Q", entry, 56)[0]
        if size_bytes > limit_bytes:
            raise UdfError(f"a file of {size_bytes} bytes, the limit is {limit_bytes}")
        attributes, descriptors = struct.unpack_from("<II", entry, header - 8)
        begin = header + attributes
        if begin + descriptors > SECTOR:
            raise UdfError("a file entry that is larger than its block")
        form = struct.unpack_from("<H", entry, 34)[0] & 7
        raw = entry[begin : begin + descriptors]
        if form == _EMBEDDED:
            return raw[:size_bytes]
        data = bytearray()
        for length, sector in self._extents(raw, form):
            for number in range((length + SECTOR - 1) // SECTOR):
                if len(data) >= size_bytes:
                    break
                data += self._sector(sector + number)
        if len(data) < size_bytes:
            raise UdfError("a file that is shorter than it says")
        return bytes(data[:size_bytes])

    def _extents(self, raw: bytes, form: int) -> Iterator[tuple[int, int]]:
        """(bytes, first sector) of each extent; the last one may be shorter than its sectors."""
        if form not in (_SHORT, _LONG):
            raise UdfError("allocation descriptors of another form")
        step = 8 if form == _SHORT else 16
        for at in range(0, min(len(raw) - step + 1, _EXTENTS_LIMIT * step), step):
            length, block = struct.unpack_from("<II", raw, at)
            reference = struct.unpack_from("<H", raw, at + 8)[0] if form == _LONG else 0
            if length >> 30:
                raise UdfError("an extent that is not recorded")
            if not length:
                return
            yield length, self._block(reference, block)


def _kind_of(descriptor: bytes) -> int:
    """The number of a descriptor's tag; 0 when its sum is wrong."""
    tag = descriptor[:16]
    if (sum(tag) - tag[4]) & 0xFF != tag[4]:
        return 0
    return int(struct.unpack_from("<H", tag)[0])


def _entries(folder: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, where its file entry is) of each file in a folder; what is deleted or a folder is left
    out.
    """
    at = 0
    while at + 38 <= len(folder):
        kind = struct.unpack_from("<H", folder, at)[0]
        flags, length = folder[at + 18], folder[at + 19]
        use = struct.unpack_from("<H", folder, at + 36)[0]
        if kind != _IDENTIFIER:
            return
        raw = folder[at + 38 + use : at + 38 + use + length]
        if raw and not flags & (_IS_FOLDER | _IS_DELETED | _IS_PARENT):
            encoding = "utf-16-be" if raw[0] in (16, 255) else "latin-1"
            yield raw[1:].decode(encoding, "replace"), folder[at + 20 : at + 36]
        at += (38 + use + length + 3) & ~3
