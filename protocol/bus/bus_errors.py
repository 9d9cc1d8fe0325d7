"""What the bus raises, seen from the one who catches it.

BusError
    EnvelopeError     a frame or a body that may not cross: drop it (receiver), make it smaller
    (sender)
    NoAnswer          the deadline passed: ask the same again, every request is idempotent
    Refused           the server answered no: asking the same again changes nothing
    SocketPathError   a path that no Unix socket can have: the root prefix must be shorter
"""

from __future__ import annotations

from waagent.protocol.base.errors import ExplainedError


class BusError(ExplainedError):
    """Root of what this room raises: what went wrong, where, and what to do about it."""


class EnvelopeError(BusError):
    """Bytes that are no envelope of ours, or a body over the limits."""


class NoAnswer(BusError):
    """Nobody answered within the deadline; the request may or may not have been carried out."""


class Refused(BusError):
    """The server refused; ``what`` is its text."""


class SocketPathError(BusError):
    """A path longer than a Unix socket's address can hold."""
