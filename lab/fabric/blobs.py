"""Blob storage: what was put where, block and page blobs alike."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from waagent.lab.fabric.values import SAS, STORAGE_HOST, Answer

PAGE_BYTES = 512
PAGES_LIMIT_BYTES = 4 * 1024 * 1024


class Blobs:
    """All blobs by path. Invariant: a page blob has a size that is a multiple of 512."""

    def __init__(self, host: str = STORAGE_HOST) -> None:
        """``host`` stands in the URLs of our blobs; with a port when it is not the usual one."""
        self._host = host
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
        refused = _refused(url, self._host)
        if refused is not None:
            return refused
        path = urlsplit(url).path
        with self._lock:
            content, kind = self._blobs.get(path), self._types.get(path, "BlockBlob")
        if content is None:
            return _error(404, "BlobNotFound")
        tag = hashlib.sha256(content).hexdigest()[:16]
        headers = {"ETag": f'"0x{tag.upper()}"', "x-ms-blob-type": kind}
        return Answer(200, content, "application/octet-stream", headers)

    def put(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What storage answers to PUT ``url``; header names in lower case."""
        refused = _refused(url, self._host)
        if refused is not None:
            return refused
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        version = headers.get("x-ms-version", "")
        if not version:
            return _error(400, "MissingRequiredHeader")
        # the versions that storage has are dates; those before 2009 are gone
        if not re.fullmatch(r"20(09|1\d|2\d)-[01]\d-[0-3]\d", version):
            return _error(400, "InvalidHeaderValue")
        if "content-length" not in headers:
            return _error(411, "MissingContentLengthHeader")
        with self._lock:
            if query.get("comp") == ["page"]:
                return self._put_pages(path, headers, body)
            kind = headers.get("x-ms-blob-type", "")
            if kind == "BlockBlob":
                self._blobs[path], self._types[path] = body, kind
                return Answer(201)
            size = headers.get("x-ms-blob-content-length", "")
            if kind != "PageBlob" or not size.isdigit() or int(size) % PAGE_BYTES or body:
                return _error(400, "InvalidHeaderValue")
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
            return _error(400, "InvalidHeaderValue")
        start, end = int(first), int(last) + 1
        content = self._blobs.get(path)
        if self._types.get(path) != "PageBlob" or content is None:
            return _error(409, "InvalidBlobType")
        aligned = start % PAGE_BYTES == 0 and end % PAGE_BYTES == 0
        if (
            not aligned
            or end - start != len(body)
            or end > len(content)
            or len(body) > PAGES_LIMIT_BYTES
        ):
            return _error(416, "InvalidPageRange")
        self._blobs[path] = content[:start] + body + content[end:]
        return Answer(201)


def document_in(content: bytes | None) -> dict[str, Any] | None:
    """The JSON document of a status blob, its padding trimmed; None when it is not whole (yet)."""
    try:
        document = json.loads((content or b"").strip(b" \0\r\n\t"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _error(status: int, code: str) -> Answer:
    """An error as storage words it: the code in the body and in a header."""
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code></Error>'
    return Answer(status, body.encode(), "application/xml", {"x-ms-error-code": code})


def _refused(url: str, host: str) -> Answer | None:
    parts = urlsplit(url)
    if parts.netloc != host:
        return _error(404, "ResourceNotFound")
    if parse_qs(SAS)["sig"] != parse_qs(parts.query).get("sig"):
        return _error(403, "AuthenticationFailed")
    return None
