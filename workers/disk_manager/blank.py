"""Whether a stretch of a disk is all zeros."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from waagent.protocol.base.records import Record
from waagent.workers.disk_manager.disk_error import NotBlank

CHUNK_BYTES = 4 * 1024 * 1024
BUDGET_S = 120.0
"""A temporary disk that was never written answers zeros at 1 to 3 GB/s; one so large that it is not
read in this time is judged by what was read by then, spread evenly over it.
"""
_EDGE_CHUNKS = 4
"""Looked at first, at both ends: where tables, signatures and most data begin."""


class Looked(Record):
    """How much was read."""

    read_bytes: int
    of_bytes: int


def assert_blank(
    descriptor: int,
    start_bytes: int,
    size_bytes: int,
    *,
    is_over: Callable[[], bool],
    tick: Callable[[], None],
) -> Looked:
    """Return when nothing but zeros was found before ``is_over()``; ``tick`` is called between
    chunks. Raises NotBlank with the place of the first byte that is none; OSError.
    """
    zeros = bytes(CHUNK_BYTES)
    count = -(-size_bytes // CHUNK_BYTES)
    looked = 0
    for done, number in enumerate(spread(count)):
        at = number * CHUNK_BYTES
        length = min(CHUNK_BYTES, size_bytes - at)
        data = os.pread(descriptor, length, start_bytes + at)
        if len(data) < length:
            raise OSError(5, "the disk ends early")
        if data != zeros[:length]:
            inside = next(index for index, byte in enumerate(data) if byte)
            raise NotBlank(
                "it has no file system that is known, but is not empty either",
                f"byte {start_bytes + at + inside} of the resource disk",
                "it is left as it is; save what is on it and wipe it (blkdiscard) to have it"
                " formatted",
            )
        looked += length
        tick()
        if done >= 2 * _EDGE_CHUNKS and is_over():
            break
    return Looked(looked, size_bytes)


def spread(count: int) -> Iterator[int]:
    """The numbers below ``count``, each once: both ends first, then ever finer over the whole."""
    edges = [
        *range(min(_EDGE_CHUNKS, count)),
        *range(max(_EDGE_CHUNKS, count - _EDGE_CHUNKS), count),
    ]
    yield from edges
    bits = max(1, (count - 1).bit_length())
    for index in range(1 << bits):
        number = int(f"{index:0{bits}b}"[::-1], 2)
        if number < count and _EDGE_CHUNKS <= number < count - _EDGE_CHUNKS:
            yield number
