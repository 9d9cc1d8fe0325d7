"""Requests to storage itself: TLS, proxy, no redirects, one deadline (part of transfer; loads
requests).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.urls import without_query
from waagent.workers.fabric_client.plain_http import USER_AGENT

TIMEOUTS_S = (15.0, 15.0)  # to connect; to the first byte, and between two
PIECE_BYTES, PIECE_S = 64 * 1024, 30.0
"""A download must bring that much in that time, else its place is another's."""
PUT_READ_S = 30.0
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def open_session(job: Mapping[str, Any]) -> requests.Session:
    """A session that takes its proxies from the job only (protocol/wire/proxies.py), and the
    machine's own certificate authorities.
    """
    session = requests.Session()
    session.trust_env = False
    session.headers["User-Agent"] = USER_AGENT
    session.verify = next((path for path in _BUNDLES if os.path.exists(path)), True)
    session.headers["Accept-Encoding"] = "identity"  # a package is taken as it is stored
    session.proxies = dict(job.get("proxies") or {})
    return session


@contextlib.contextmanager
def _piece_by_piece(where: str) -> Iterator[Callable[[], object]]:
    """What it gives is called before each piece: one that takes longer than PIECE_S raises
    DocumentError, even when single bytes keep coming, which no time-out of a socket sees.
    """

    def too_slow(number: int, frame: object) -> None:
        raise DocumentError(f"less than {PIECE_BYTES} bytes in {PIECE_S:g} s", where)

    began = time.monotonic()
    before, left_s = (
        signal.signal(signal.SIGALRM, too_slow),
        signal.getitimer(signal.ITIMER_REAL)[0],
    )
    try:
        yield functools.partial(signal.setitimer, signal.ITIMER_REAL, PIECE_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left_s:
            signal.setitimer(signal.ITIMER_REAL, max(0.1, left_s - (time.monotonic() - began)))


def receive(session: requests.Session, url: str, until: float) -> Iterator[bytes]:
    """The content of ``url`` in pieces. Raises DocumentError; the error never holds the query."""
    where = without_query(url)
    try:
        with _piece_by_piece(where) as next_piece:
            next_piece()
            with session.get(url, stream=True, timeout=TIMEOUTS_S, allow_redirects=False) as answer:
                if answer.status_code != 200:
                    raise DocumentError(f"status {answer.status_code}", where)
                for piece in answer.iter_content(PIECE_BYTES):
                    if time.monotonic() > until:
                        raise DocumentError("took too long", where)
                    yield piece
                    next_piece()
    except (requests.RequestException, OSError, ValueError) as error:
        raise DocumentError(f"cannot be read ({type(error).__name__})", where) from error


def put(
    session: requests.Session, url: str, headers: Mapping[str, str], content: bytes | None
) -> None:
    """One PUT that must be answered 201. Raises DocumentError."""
    where = without_query(url)
    try:
        answer = session.put(
            url,
            data=content or b"",
            headers=dict(headers),
            timeout=(TIMEOUTS_S[0], PUT_READ_S),
            allow_redirects=False,
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise DocumentError(f"cannot be written ({type(error).__name__})", where) from error
    if answer.status_code != 201:
        raise DocumentError(f"status {answer.status_code}", where)
