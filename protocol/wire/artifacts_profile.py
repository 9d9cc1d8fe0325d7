"""The artifacts profile, a blob that ExtensionsConfig may name: only `onHold` of it is used.
Standard library only.
"""

from __future__ import annotations

import json

from waagent.protocol.base.input_errors import DocumentError

_WHERE = "artifacts profile"


def read_on_hold(data: bytes) -> bool:
    """Whether extensions are to wait; a profile that is empty or only padding says no. Raises
    DocumentError.
    """
    text = data.decode("utf-8-sig", "replace").strip(" \t\r\n\0")
    if not text:
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError("not JSON", _WHERE) from error
    if not isinstance(found, dict):
        raise DocumentError("not a JSON object", _WHERE)
    value = {key.lower(): item for key, item in found.items()}.get("onhold", False)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise DocumentError("onHold is neither true nor false", _WHERE)
    return value
