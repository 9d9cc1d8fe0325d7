"""Blocking plain HTTP for transfer, with one deadline over connect, send and all of the answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping

from waagent import __version__
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.constants import AGENT_NAME
from waagent.protocol.wire.http1 import Answer, AnswerReader, build_request, host_header

Connect = Callable[[tuple[str, int], float], socket.socket]
"""From an address and a deadline in seconds to a connected socket; raises OSError."""
_CHUNK_BYTES = 256 * 1024
SILENCE_S = 15.0  # to connect, to the first byte, and between two: then the other way is tried
USER_AGENT = f"{AGENT_NAME}/{__version__}"


def get(
    connect: Connect,
    address: tuple[str, int],
    target: str,
    headers: Mapping[str, str],
    where: str,
    *,
    limit_bytes: int,
    deadline_s: float,
) -> Answer:
    """The answer, whatever its status. Raises DocumentError."""
    reader = AnswerReader(where, limit_bytes=limit_bytes)
    for data in receive(connect, address, target, headers, where, deadline_s=deadline_s):
        answer = reader.feed(data) if data else reader.end()
        if answer is not None:
            return answer
    raise DocumentError("the connection ended without an answer", where)


def receive(
    connect: Connect,
    address: tuple[str, int],
    target: str,
    headers: Mapping[str, str],
    where: str,
    *,
    deadline_s: float,
) -> Iterator[bytes]:
    """What arrives, an empty piece last. Raises DocumentError."""
    until = time.monotonic() + deadline_s
    request = build_request("GET", target, host_header(*address), headers, agent=USER_AGENT)
    try:
        with connect(address, min(deadline_s, SILENCE_S)) as connection:
            connection.sendall(request)
            data = b"x"
            while data:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    raise DocumentError(f"no whole answer within {deadline_s:g} s", where)
                connection.settimeout(min(left_s, SILENCE_S))
                data = connection.recv(_CHUNK_BYTES)
                yield data
    except socket.timeout as error:
        silence_s = min(deadline_s, SILENCE_S)
        raise DocumentError(f"nothing came for {silence_s:g} s", where) from error
    except OSError as error:
        raise DocumentError(error.strerror or "connection failed", where) from error
