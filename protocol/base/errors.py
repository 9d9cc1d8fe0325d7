"""The form of our errors: what went wrong, where, what to do about it, in one line."""

from __future__ import annotations


class ExplainedError(Exception):
    """Root of the errors of every room; its text is `what: where: remedy`."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{what}: {where}: {remedy}")
        self.what, self.where, self.remedy = what, where, remedy


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
