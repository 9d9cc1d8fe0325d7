"""Requests to storage itself: TLS, proxy, no redirects, one deadline (part of transfer; loads
requests).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.urls import without_query
from waagent.workers.fabric_client.plain_http import USER_AGENT

_CHUNK_BYTES = 1024 * 1024
READ_S = 30.0
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def open_session(job: Mapping[str, Any]) -> requests.Session:
    """A session that takes its proxy from the configuration only, and the machine's own certificate
    authorities.
    """
    session = requests.Session()
    session.trust_env = False
    session.headers["User-Agent"] = USER_AGENT
    session.verify = next((path for path in _BUNDLES if os.path.exists(path)), True)
    if job.get("proxy"):
        session.proxies = {"http": str(job["proxy"]), "https": str(job["proxy"])}
    return session


def receive(session: requests.Session, url: str, until: float) -> Iterator[bytes]:
    """The content of ``url`` in pieces. Raises DocumentError; the error never holds the query."""
    where = without_query(url)
    try:
        with session.get(url, stream=True, timeout=READ_S, allow_redirects=False) as answer:
            if answer.status_code != 200:
                raise DocumentError(f"status {answer.status_code}", where)
            for piece in answer.iter_content(_CHUNK_BYTES):
                if time.monotonic() > until:
                    raise DocumentError("took too long", where)
                yield piece
    except (requests.RequestException, OSError, ValueError) as error:
        raise DocumentError(f"cannot be read ({type(error).__name__})", where) from error


def put(
    session: requests.Session, url: str, headers: Mapping[str, str], content: bytes | None
) -> None:
    """One PUT that must be answered 201. Raises DocumentError."""
    where = without_query(url)
    try:
        answer = session.put(
            url, data=content or b"", headers=dict(headers), timeout=READ_S, allow_redirects=False
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise DocumentError(f"cannot be written ({type(error).__name__})", where) from error
    if answer.status_code != 201:
        raise DocumentError(f"status {answer.status_code}", where)
