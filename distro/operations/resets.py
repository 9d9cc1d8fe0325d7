"""An operator has a handler's failures forgotten: a request that lies beside the handler's journal
until the runner has carried it out.
"""

from __future__ import annotations

from pathlib import Path

from waagent.distro import files


def has_journal(operations: Path, name: str) -> bool:
    """Whether a runner ever had this handler."""
    return "/" not in name and journal(operations, name).is_file()


def journal(operations: Path, name: str) -> Path:
    """The runner's record of the handler."""
    return operations / "handlers" / f"{name.lower()}.json"


def request(operations: Path, name: str) -> Path:
    """The request; absent when it was carried out, or never made."""
    return operations / "handlers" / f"{name.lower()}.reset"


def ask(operations: Path, name: str) -> Path:
    """Make the request. Raises OSError."""
    path = request(operations, name)
    files.write_atomic(path, b"")
    return path
