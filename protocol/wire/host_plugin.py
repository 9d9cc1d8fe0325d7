"""HostGAPlugin bodies and answers (spec: wire §3)."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping

from waagent.protocol.wire import constants


def status_request(url: str, headers: Mapping[str, str], content: bytes | None) -> bytes:
    """The body of PUT /status: what the host is to PUT to storage; no ``content`` for the call that
    creates a page blob.
    """
    body: dict[str, object] = {
        "headers": [{"headerName": name, "headerValue": value} for name, value in headers.items()],
        "requestUri": url,
    }
    if content is not None:
        body["content"] = binascii.b2a_base64(content, newline=False).decode("ascii")
    return json.dumps(body).encode("ascii")


def is_stale(status: int, body: bytes) -> bool:
    """True when the host no longer knows the container or its configuration: refresh the goal
    state.
    """
    if status == constants.GONE:
        return True
    return status == 400 and (
        b"InvalidContainerConfiguration" in body or b"RequestRoleConfigFileNotFound" in body
    )
