"""URLs of the platform: which ones are followed, and how they look in a log."""

from __future__ import annotations

import re

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.records import Record

_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f]")
URL_LIMIT_CHARACTERS = 4096


class Location(Record):
    """A URL taken apart; ``target`` is path and query byte for byte as the platform wrote them."""

    scheme: str
    host: str
    port: int
    target: str


def _take_apart(text: str, where: str) -> Location:
    from urllib.parse import urlsplit  # 0.4 MiB; a process that stays never takes a URL apart

    url = text.strip()
    if not url or len(url) > URL_LIMIT_CHARACTERS or _CONTROL.search(url):
        raise DocumentError("not a URL (empty, too long, or blanks in it)", where)
    try:
        url.encode("ascii")
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise DocumentError("not a URL", where) from error
    if parts.username is not None or not parts.hostname:
        raise DocumentError("a URL without host, or with a user in it", where)
    authority = url.index("//") + 2
    target = url[authority + len(parts.netloc) :].partition("#")[0]
    if not target.startswith("/"):
        target = "/" + target
    return Location(
        parts.scheme.lower(),
        parts.hostname,
        port or {"http": 80, "https": 443}.get(parts.scheme.lower(), 0),
        target,
    )


def wire_target(text: str, endpoint: str, where: str, port: int = 80) -> str:
    """Path and query of a URL on the WireServer itself, not normalised (spec: wire §2.3).

    Raises DocumentError for any other scheme, host or port: a document must not send the agent
    elsewhere.
    """
    location = _take_apart(text, where)
    if location.scheme != "http" or location.host != endpoint or location.port != port:
        raise DocumentError(
            f"the URL leads to {location.scheme}://{location.host[:60]}:{location.port}, not to the"
            " WireServer",
            where,
        )
    return location.target


def storage_url(text: str, where: str) -> str:
    """A URL of storage as it may be used: http or https with a host. Raises DocumentError."""
    location = _take_apart(text, where)
    if location.scheme not in ("http", "https"):
        raise DocumentError(f"the URL's scheme is {location.scheme[:20]!r}", where)
    return text.strip()


def without_query(url: str) -> str:
    """The URL as it may stand in a log: queries hold signatures, and a proxy's has its user and
    password before the host.
    """
    plain = re.split(r"[?#\s]", url.strip(), maxsplit=1)[0]
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/]*@", r"\1", plain)[:200]
