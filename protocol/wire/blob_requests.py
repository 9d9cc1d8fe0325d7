"""Status blob uploads as a list of PUTs: block blobs in one, page blobs created and then written
(spec: wire §2.13.2).
"""

from __future__ import annotations

from waagent.protocol.base.records import Record
from waagent.protocol.wire.constants import (
    BLOCK_BLOB,
    PAGE_BLOB,
    PAGE_BYTES,
    PAGE_WRITE_BYTES,
    STORAGE_VERSION,
)


class Put(Record):
    """One PUT to storage; ``content`` None: no body."""

    url: str
    headers: dict[str, str]
    content: bytes | None


def blob_type(text: str) -> str:
    """The type as the goal state names it; whatever is not a page blob is a block blob."""
    return PAGE_BLOB if text == PAGE_BLOB else BLOCK_BLOB


def plan_puts(url: str, kind: str, content: bytes, date: str, *, padding: bytes) -> list[Put]:
    """The PUTs that store ``content``; ``padding`` fills the last page (NUL to storage itself,
    blank through the host).

    ``date`` is `YYYY-MM-DDTHH:MM:SSZ`.
    """
    common = {"x-ms-date": date, "x-ms-version": STORAGE_VERSION}
    if kind != PAGE_BLOB:
        return [
            Put(
                url,
                {"Content-Length": str(len(content)), "x-ms-blob-type": BLOCK_BLOB, **common},
                content,
            )
        ]
    pages = -(-len(content) // PAGE_BYTES)
    padded = content.ljust(pages * PAGE_BYTES, padding)
    create = {
        "Content-Length": "0",
        "x-ms-blob-type": PAGE_BLOB,
        "x-ms-blob-content-length": str(len(padded)),
        **common,
    }
    return [Put(url, create, None)] + [
        _page_put(url, common, padded[start : start + PAGE_WRITE_BYTES], start)
        for start in range(0, len(padded), PAGE_WRITE_BYTES)
    ]


def _page_put(url: str, common: dict[str, str], piece: bytes, start: int) -> Put:
    headers = {
        "Content-Length": str(len(piece)),
        "x-ms-range": f"bytes={start}-{start + len(piece) - 1}",
        "x-ms-page-write": "update",
        **common,
    }
    return Put(url + ("&" if "?" in url else "?") + "comp=page", headers, piece)
