"""Blob storage as its clients reach it: by TLS on its own address, or by plain HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from waagent.lab.fabric.http import Request
from waagent.lab.fabric.values import Answer

if TYPE_CHECKING:
    from waagent.lab.fabric.fabric import Fabric


def answer(fabric: Fabric, request: Request) -> Answer:
    """What storage says to ``request``; a status blob that was put is kept as a status."""
    # as a proxy is asked, the target is a whole URL
    plain = f"http://{fabric.storage}"
    target = request.path[len(plain) :] if request.path.startswith(plain) else request.path
    url = f"{fabric.scheme}://{fabric.storage}{target}"
    if request.method in ("GET", "HEAD"):
        return fabric.blobs.get(url)
    if request.method != "PUT":
        fabric.complain(f"{request.method} {urlsplit(url).path}: storage is asked GET, HEAD or PUT")
        return Answer(405, b"<Error><Code>UnsupportedHttpVerb</Code></Error>")
    made = fabric.blobs.put(url, request.headers, request.body)
    if made.status == 201:
        kind = request.headers.get("x-ms-blob-type", "page")
        fabric.keep_status(unquote(urlsplit(url).path), "direct", kind)
    else:
        fabric.complain(f"PUT {urlsplit(url).path}: storage answered {made.status}")
    return made
