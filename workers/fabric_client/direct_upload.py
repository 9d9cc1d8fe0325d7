"""The status blob straight to storage, when the HostGAPlugin would not take it (part of
transfer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire import blob_requests
from waagent.workers.fabric_client import storage


def store_status(job: Mapping[str, Any], send: Callable[..., None]) -> None:
    """Operation status."""
    session = storage.open_session(job)
    try:
        for put in blob_requests.plan_puts(
            job["url"], job["blob_type"], job["content"], job["date"], padding=b"\0"
        ):
            storage.put(session, put.url, put.headers, put.content)
    except DocumentError as error:
        send("failed", part="status", text=f"{error.what}: {error.where}", status=0)
        return
    send("stored")
