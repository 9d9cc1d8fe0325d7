"""What comes from outside and is not what it should be."""

from __future__ import annotations

from waagent.protocol.base.errors import ExplainedError


class DocumentError(ExplainedError):
    """A document, answer or file that is not what its specification says; what every reader of one
    from outside raises, and nothing else.
    """

    def __init__(
        self, what: str, where: str, remedy: str = "none needed, asked again with the next poll"
    ) -> None:
        super().__init__(what, where, remedy)


class UsageError(ExplainedError):
    """The command line cannot be understood."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, "command line", remedy)
