"""Blob storage: what was put where, block and page blobs alike (spec: wire §2.13.2)."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from waagent.lab.fabric.values import SAS, STORAGE_HOST, Answer

PAGE_BYTES = 512
PAGES_LIMIT_BYTES = 4 * 1024 * 1024


class Blobs:
    """All blobs by path. Invariant: a page blob has a size that is a multiple of 512."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blobs: dict[str, bytes] = {}
        self._types: dict[str, str] = {}

    def keep(self, path: str, content: bytes) -> None:
        """The platform's own blob (a manifest, a package)."""
        with self._lock:
            self._blobs[path] = content
            self._types[path] = "BlockBlob"

    def forget(self, path: str) -> None:
        with self._lock:
            self._blobs.pop(path, None)

    def content(self, path: str) -> bytes | None:
        with self._lock:
            return self._blobs.get(path)

    def get(self, url: str) -> Answer:
        """What storage answers to GET ``url``."""
        refused = _refused(url)
        if refused is not None:
            return refused
        with self._lock:
            content = self._blobs.get(urlsplit(url).path)
        if content is None:
            return Answer(404, b"<Error><Code>BlobNotFound</Code></Error>")
        return Answer(200, content, "application/octet-stream")

    def put(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What storage answers to PUT ``url``; header names in lower case."""
        refused = _refused(url)
        if refused is not None:
            return refused
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if headers.get("x-ms-version", "") < "2009":
            return Answer(
                400,
                b"<Error><Code>MissingRequiredHeader</Code><HeaderName>x-ms-version</HeaderName></Error>",
            )
        with self._lock:
            if query.get("comp") == ["page"]:
                return self._put_pages(path, headers, body)
            kind = headers.get("x-ms-blob-type", "")
            if kind == "BlockBlob":
                self._blobs[path], self._types[path] = body, kind
                return Answer(201)
            size = headers.get("x-ms-blob-content-length", "")
            if kind != "PageBlob" or not size.isdigit() or int(size) % PAGE_BYTES or body:
                return Answer(400, b"<Error><Code>InvalidHeaderValue</Code></Error>")
            self._blobs[path], self._types[path] = b"\0" * int(size), kind
        return Answer(201)

    def _put_pages(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        unit, _, span = headers.get("x-ms-range", "").partition("=")
        first, _, last = span.partition("-")
        if (
            unit != "bytes"
            or not first.isdigit()
            or not last.isdigit()
            or headers.get("x-ms-page-write") != "update"
        ):
            return Answer(400, b"<Error><Code>InvalidHeaderValue</Code></Error>")
        start, end = int(first), int(last) + 1
        content = self._blobs.get(path)
        if self._types.get(path) != "PageBlob" or content is None:
            return Answer(409, b"<Error><Code>InvalidBlobType</Code></Error>")
        aligned = start % PAGE_BYTES == 0 and end % PAGE_BYTES == 0
        if (
            not aligned
            or end - start != len(body)
            or end > len(content)
            or len(body) > PAGES_LIMIT_BYTES
        ):
            return Answer(416, b"<Error><Code>InvalidPageRange</Code></Error>")
        self._blobs[path] = content[:start] + body + content[end:]
        return Answer(201)


def document_in(content: bytes | None) -> dict[str, Any] | None:
    """The JSON document of a status blob, its padding trimmed; None when it is not whole (yet)."""
    try:
        document = json.loads((content or b"").strip(b" \0\r\n\t"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _refused(url: str) -> Answer | None:
    parts = urlsplit(url)
    if parts.hostname != STORAGE_HOST:
        return Answer(404, b"<Error><Code>ResourceNotFound</Code></Error>")
    if parse_qs(SAS)["sig"] != parse_qs(parts.query).get("sig"):
        return Answer(403, b"<Error><Code>AuthenticationFailed</Code></Error>")
    return None
