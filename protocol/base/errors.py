"""What every reader of a document from outside raises, and nothing else."""

from __future__ import annotations


class DocumentError(Exception):
    """A document, answer or file that is not what its specification says: what is wrong, where,
    what to do about it.
    """

    def __init__(
        self, what: str, where: str, remedy: str = "none needed, asked again with the next poll"
    ) -> None:
        super().__init__(f"{what}: {where}: {remedy}")
        self.what, self.where, self.remedy = what, where, remedy
