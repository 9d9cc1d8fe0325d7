"""A text that must never reach a log, a command line or an error."""

from __future__ import annotations


class Secret(str):
    """A password or the like: printed, formatted or shown in a traceback it is ``***``; only
    `reveal` gives it away.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def reveal(self) -> str:
        """The text itself."""
        return str.__getitem__(self, slice(None))
