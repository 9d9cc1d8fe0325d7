"""The command's stdout and stderr: two pipes, drained for as long as somebody holds them, their
first and last bytes kept.

The file `output`: a head of 64 bytes (magic, bytes seen of each stream), then for each stream
HEAD_BYTES from its beginning and a ring of TAIL_BYTES. It is written in place as data comes, so
what was said survives the shim.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

MAGIC = b"WAO1"
HEAD_BYTES, TAIL_BYTES = 32 * 1024, 64 * 1024
FILE_HEAD_BYTES = 64
STREAM_BYTES = HEAD_BYTES + TAIL_BYTES
_CHUNK_BYTES = 64 * 1024
_BURST_BYTES, _REST_S = 1 << 20, 0.025  # at most 40 MiB/s: `yes` is slowed and takes no core


class Output:
    """Both streams of one command. Invariant: a full disk costs what is kept, never the reading."""

    def __init__(self, file: int, readers: tuple[int, int]) -> None:
        self.totals = [0, 0]
        self._file = file
        self._index = {readers[0]: 0, readers[1]: 1}
        self._burst = 0
        self.poll = select.poll()
        self._watched: dict[int, Callable[[], None]] = {}
        for reader in readers:
            os.set_blocking(reader, False)
            self.poll.register(reader, select.POLLIN)

    def watch(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call this whenever ``descriptor`` can be read, until its other side is gone."""
        self._watched[descriptor] = call
        self.poll.register(descriptor, select.POLLIN)

    def is_watched(self, descriptor: int) -> bool:
        """Its other side is there."""
        return descriptor in self._watched

    @property
    def held(self) -> list[int]:
        """The pipes that somebody can still write to."""
        return list(self._index)

    def turn(self, pause_s: float) -> bool:
        """Wait for something on any descriptor of `poll`, take what there is; whether there was
        anything.
        """
        ready = self.poll.poll(pause_s * 1000)
        for descriptor, event in ready:
            if descriptor in self._index:
                self._take(descriptor)
            elif descriptor in self._watched and event & select.POLLIN:
                self._watched[descriptor]()
            elif descriptor in self._watched:
                self.poll.unregister(descriptor)
                del self._watched[descriptor]
        if self._burst >= _BURST_BYTES:
            self._burst = 0
            time.sleep(_REST_S)
        return bool(ready)

    def _take(self, reader: int) -> None:
        try:
            data = os.read(reader, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            self.poll.unregister(reader)
            del self._index[reader]
            os.close(reader)
            return
        self._burst += len(data)
        index = self._index[reader]
        seen = self.totals[index]
        self.totals[index] += len(data)
        try:
            self._keep(index, seen, data)
            os.pwrite(
                self._file,
                MAGIC + b"".join(total.to_bytes(8, "little") for total in self.totals),
                0,
            )
        except OSError:
            return  # the disk is full: the bytes are counted, and lost

    def _keep(self, index: int, seen: int, data: bytes) -> None:
        start = FILE_HEAD_BYTES + index * STREAM_BYTES
        in_head = max(0, min(len(data), HEAD_BYTES - seen))
        if in_head:
            os.pwrite(self._file, data[:in_head], start + seen)
        rest = data[in_head:]
        if not rest:
            return
        at = (seen + in_head - HEAD_BYTES + max(0, len(rest) - TAIL_BYTES)) % TAIL_BYTES
        rest = rest[-TAIL_BYTES:]
        until_end = TAIL_BYTES - at
        os.pwrite(self._file, rest[:until_end], start + HEAD_BYTES + at)
        if len(rest) > until_end:
            os.pwrite(self._file, rest[until_end:], start + HEAD_BYTES)


def kept(data: bytes, index: int) -> tuple[bytes, bytes, int]:
    """Head, tail and number of bytes dropped between them of one stream in the file's content;
    empty for a foreign file.
    """
    if data[:4] != MAGIC:
        return b"", b"", 0
    total = int.from_bytes(data[4 + 8 * index : 12 + 8 * index], "little")
    start = FILE_HEAD_BYTES + index * STREAM_BYTES
    stream = data[start : start + STREAM_BYTES].ljust(STREAM_BYTES, b"\0")
    head, ring = stream[: min(total, HEAD_BYTES)], stream[HEAD_BYTES:]
    beyond = total - HEAD_BYTES
    if beyond <= 0:
        return head, b"", 0
    if beyond <= TAIL_BYTES:
        return head, ring[:beyond], 0
    at = beyond % TAIL_BYTES
    return head, ring[at:] + ring[:at], beyond - TAIL_BYTES
