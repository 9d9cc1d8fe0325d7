"""Texts that must not be printed: a type for secrets, and URLs without what grants access."""

from __future__ import annotations

HIDDEN = "***"


class Secret(str):
    """A password, a key, a protected setting. Printing and formatting show ``***``; `reveal` gives the text.

    It is a `str`, so that it can be written and sent; joining or adding it to another text reveals it, formatting does not.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, specification: str) -> str:
        return HIDDEN

    def reveal(self) -> str:
        """The plain text."""
        return str.__str__(self)


def without_query(url: str) -> str:
    """``url`` without user, password, query and fragment: the signature of a blob's URL stands in its query."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = rest.split("?", 1)[0].split("#", 1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
