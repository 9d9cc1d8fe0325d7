"""HTTP/1.1 as far as WireServer and HostGAPlugin speak it: one request, one answer, then the
connection ends.

Pure: bytes in, an answer or an error out. The resident client uses this instead of http.client,
which loads `email` and `ssl` (3 MiB), reads with a time-out per byte only, and cannot wait inside
an event loop. Redirects are answers like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.records import Record

HEAD_LIMIT_BYTES = 64 * 1024
LINE_LIMIT_BYTES = 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(r"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")


class Answer(Record):
    """One answer, whole; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes


def build_request(
    method: str,
    target: str,
    host: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    *,
    agent: str,
) -> bytes:
    """The bytes of a request; ``target`` goes out as it is. Raises ValueError on control characters
    in any part.
    """
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        f"User-Agent: {agent}",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if not all(line.isascii() and line.isprintable() for line in lines) or " " in target:
        raise ValueError("a request line or header holds a character that HTTP has no place for")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b"")


def host_header(address: str, port: int) -> str:
    """``address`` as the Host header names it: the port only when it is not HTTP's own."""
    name = f"[{address}]" if ":" in address else address
    return name if port == 80 else f"{name}:{port}"


class StreamReader:
    """Takes what arrives and gives the body in pieces. Invariant: keeps no more than a head or a
    chunk's line.
    """

    def __init__(self, where: str, *, limit_bytes: int | None = None) -> None:
        """``limit_bytes`` of the whole body; None: whoever takes the pieces counts."""
        self._where = where
        self._limit_bytes = limit_bytes
        self._pending = bytearray()
        self._given_bytes = 0
        self._left: int | None = None
        """Bytes still to come of the body or chunk; None: until the end of the connection."""
        self._chunked = False
        self._in_trailer = False
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        self.is_whole = False

    def feed(self, data: bytes) -> bytes:
        """What of the body is in ``data``. Raises DocumentError."""
        self._pending += data
        while self.status == 0:
            if not self._take_head():
                return b""
        piece = self._take_chunks() if self._chunked else self._take_body()
        self._given_bytes += len(piece)
        return piece

    def end(self) -> bytes:
        """The connection has ended: nothing, if its end marks the end of the body. Raises
        DocumentError.
        """
        if self.status and not self._chunked and self._left is None:
            self.is_whole = True
        if not self.is_whole:
            raise DocumentError(
                (
                    "the answer was cut off"
                    if self.status
                    else "the connection ended without an answer"
                ),
                self._where,
            )
        return b""

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
            self.headers = self._read_headers(lines[1:])
            self.status = status
            self._plan_body()
        return True

    def _read_headers(self, lines: list[bytes]) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").rstrip("\r").partition(":")
            if not colon or not _HEADER_NAME.fullmatch(name):
                raise DocumentError("the answer has a malformed header", self._where)
            if (
                name.lower() == "content-length"
                and headers.get("content-length", value.strip()) != value.strip()
            ):
                raise DocumentError("the answer has two lengths", self._where)
            headers[name.lower()] = value.strip()
        return headers

    def _plan_body(self) -> None:
        coding = self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if self.status in (204, 304):
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
        if self._limit_bytes is not None and size_bytes > self._limit_bytes:
            raise DocumentError(
                f"the answer has {size_bytes} bytes or more, the limit is {self._limit_bytes}",
                self._where,
            )

    def _take_body(self) -> bytes:
        piece = bytes(self._pending if self._left is None else self._pending[: self._left])
        if self._left is None:
            self._refuse_size(self._given_bytes + len(piece))
        else:
            self._left -= len(piece)
            self.is_whole = self._left == 0
        self._pending.clear()
        return piece

    def _take_chunks(self) -> bytes:
        """Each chunk: a line with its size, the data, an empty line; a chunk of size 0 and trailer
        lines end it.
        """
        taken = bytearray()
        while not self.is_whole:
            left = self._left or 0
            taken += self._pending[:left]
            self._left = left - min(left, len(self._pending))
            del self._pending[:left]
            end = -1 if self._left else self._pending.find(b"\n")
            if end < 0:
                if not self._left and len(self._pending) > LINE_LIMIT_BYTES:
                    raise DocumentError("a chunk without its size", self._where)
                break
            line = bytes(self._pending[:end]).rstrip(b"\r")
            del self._pending[: end + 1]
            if self._in_trailer:
                self.is_whole = not line
            elif line:
                self._begin_chunk(line, self._given_bytes + len(taken))
        return bytes(taken)

    def _begin_chunk(self, line: bytes, given_bytes: int) -> None:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise DocumentError("a chunk without its size", self._where)
        self._left = int(match.group(1), 16)
        self._in_trailer = self._left == 0
        self._refuse_size(given_bytes + self._left)


class AnswerReader:
    """Takes what arrives until the answer is whole. Invariant: never keeps more than the limits of
    head and body.
    """

    def __init__(self, where: str, *, limit_bytes: int) -> None:
        self._stream = StreamReader(where, limit_bytes=limit_bytes)
        self._body = bytearray()

    def feed(self, data: bytes) -> Answer | None:
        """The answer once it is whole, else None. Raises DocumentError."""
        self._body += self._stream.feed(data)
        return self._answer() if self._stream.is_whole else None

    def end(self) -> Answer:
        """The connection has ended: the answer, if its end marks the end of the body. Raises
        DocumentError.
        """
        self._stream.end()
        return self._answer()

    def _answer(self) -> Answer:
        return Answer(self._stream.status, self._stream.headers, bytes(self._body))
