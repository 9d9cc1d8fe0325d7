"""The form of our errors: what went wrong, where, what to do about it, in one line."""

from __future__ import annotations


class ExplainedError(Exception):
    """Root of the errors of every room; its text is `what: where: remedy`."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{what}: {where}: {remedy}")
        self.what, self.where, self.remedy = what, where, remedy
