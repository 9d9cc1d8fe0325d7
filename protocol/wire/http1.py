"""HTTP/1.1 as far as WireServer and HostGAPlugin speak it: one request, one answer, then the connection ends.

Pure: bytes in, an answer or an error out. The resident client uses this instead of http.client, which loads `email` and
`ssl` (3 MiB), reads with a time-out per byte only, and cannot wait inside an event loop. Redirects are answers like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from waagent.protocol.errors import DocumentError

HEAD_LIMIT_BYTES = 64 * 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")


class Answer(NamedTuple):
    """One answer, whole; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


def build_request(method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None = None, *, agent: str) -> bytes:
    """The bytes of a request; ``target`` goes out as it is. Raises ValueError on control characters in any part."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", f"User-Agent: {agent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any(ord(character) < 32 or ord(character) > 126 for line in lines for character in line) or " " in target:
        raise ValueError("a request line or header holds a character that HTTP has no place for")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b"")


class AnswerReader:
    """Takes what arrives until the answer is whole. Invariant: never keeps more than the limits of head and body."""

    def __init__(self, where: str, *, limit_bytes: int) -> None:
        self._where = where
        self._limit_bytes = limit_bytes
        self._pending = bytearray()
        self._body = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._left: int | None = None
        """Bytes still to come of the body or chunk; None: until the end of the connection."""
        self._chunked = False
        self._in_trailer = False

    def feed(self, data: bytes) -> Answer | None:
        """The answer once it is whole, else None. Raises DocumentError."""
        self._pending += data
        while self._status == 0:
            if not self._take_head():
                return None
        return self._take_chunks() if self._chunked else self._take_body()

    def end(self) -> Answer:
        """The connection has ended: the answer, if its end marks the end of the body. Raises DocumentError."""
        if self._status and not self._chunked and self._left is None:
            return Answer(self._status, self._headers, bytes(self._body))
        raise DocumentError("the answer was cut off" if self._status else "the connection ended without an answer", self._where)

    def _take_head(self) -> bool:
        end = self._pending.find(b"\r\n\r\n")
        width = 4
        if end < 0:
            end, width = self._pending.find(b"\n\n"), 2
        if end < 0 or end > HEAD_LIMIT_BYTES:
            if len(self._pending) > HEAD_LIMIT_BYTES:
                raise DocumentError("the head of the answer has no end", self._where)
            if len(self._pending) >= 5 and not self._pending.startswith(b"HTTP/"):
                raise DocumentError("the answer is not HTTP", self._where)
            return False
        lines = bytes(self._pending[:end]).split(b"\n")
        del self._pending[: end + width]
        match = _STATUS_LINE.fullmatch(lines[0].rstrip(b"\r"))
        if match is None:
            raise DocumentError("the answer is not HTTP", self._where)
        status = int(match.group(1))
        if status >= 200:  # 1xx is followed by the answer proper
            self._headers = self._read_headers(lines[1:])
            self._status = status
            self._plan_body()
        return True

    def _read_headers(self, lines: list[bytes]) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").rstrip("\r").partition(":")
            if not colon or not _HEADER_NAME.fullmatch(name):
                raise DocumentError("the answer has a malformed header", self._where)
            if name.lower() == "content-length" and headers.get("content-length", value.strip()) != value.strip():
                raise DocumentError("the answer has two lengths", self._where)
            headers[name.lower()] = value.strip()
        return headers

    def _plan_body(self) -> None:
        coding = self._headers.get("transfer-encoding", "").lower()
        length = self._headers.get("content-length")
        if self._status in (204, 304):
            self._left = 0
        elif coding not in ("", "identity"):
            if coding != "chunked":
                raise DocumentError(f"unknown transfer coding {coding[:40]!r}", self._where)
            self._chunked, self._left = True, 0
        elif length is not None:
            if not _DIGITS.fullmatch(length):
                raise DocumentError(f"the length {length[:40]!r} is not a number", self._where)
            self._left = int(length)
            self._refuse_size(self._left)

    def _refuse_size(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise DocumentError(f"the answer has {size_bytes} bytes or more, the limit is {self._limit_bytes}", self._where)

    def _take_body(self) -> Answer | None:
        if self._left is None:
            self._refuse_size(len(self._body) + len(self._pending))
            self._body += self._pending
            self._pending.clear()
            return None
        taken = self._pending[: self._left]
        del self._pending[: self._left]
        self._body += taken
        self._left -= len(taken)
        return Answer(self._status, self._headers, bytes(self._body)) if self._left == 0 else None

    def _take_chunks(self) -> Answer | None:
        """Each chunk: a line with its size, the data, an empty line; a chunk of size 0 and trailer lines end it."""
        assert self._left is not None
        while True:
            if self._left > 0:
                taken = self._pending[: self._left]
                del self._pending[: len(taken)]
                self._body += taken
                self._left -= len(taken)
                if self._left > 0:
                    return None
            end = self._pending.find(b"\n")
            if end < 0:
                if len(self._pending) > 1024:
                    raise DocumentError("a chunk without its size", self._where)
                return None
            line = bytes(self._pending[:end]).rstrip(b"\r")
            del self._pending[: end + 1]
            if self._in_trailer:
                if not line:
                    return Answer(self._status, self._headers, bytes(self._body))
            elif line:
                self._begin_chunk(line)

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise DocumentError("a chunk without its size", self._where)
        self._left = int(match.group(1), 16)
        self._in_trailer = self._left == 0
        self._refuse_size(len(self._body) + self._left)
