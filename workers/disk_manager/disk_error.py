"""What this room raises."""

from __future__ import annotations

from waagent.protocol.base.errors import ExplainedError


class DiskError(ExplainedError):
    """Something about the resource disk cannot be done: what, where, remedy."""


class NotBlank(DiskError):
    """Somebody's data may be on the disk: it is left as it is."""
