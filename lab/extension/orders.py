"""What an author wants to have run, and the steps that follow from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waagent.protocol.base.records import Record

INSTALL, ENABLE, DISABLE, UPDATE, UNINSTALL = "install", "enable", "disable", "update", "uninstall"
OPERATIONS = (INSTALL, ENABLE, DISABLE, UPDATE, UNINSTALL)
_NOT_RUN = "NOT_RUN"


class Order(Record):
    """One run. All fields cross as JSON."""

    name: str
    version: str
    package: str
    """File with the package, as the box sees it."""
    old_package: str = ""
    """Of the version to update from; empty: none."""
    old_version: str = ""
    settings: Mapping[str, Any] | None = None
    operations: Sequence[str] = (INSTALL, ENABLE)
    again: bool = False
    timeout_s: float | None = None
    internet: bool = False
    shell: bool = False
    profile: str = ""
    """`default` or `strict`; empty: what the package asks for."""
    root: str = ""
    """Where the box lies."""
    results: str = ""
    """Folder on this machine for output and files."""


class Step(Record):
    """One command of one version."""

    operation: str
    version: str
    environment: Mapping[str, str]


def steps(order: Order) -> list[Step]:
    """The commands in the order of the platform's contract."""
    if order.old_package:
        return _update(order)
    wanted = [operation for operation in OPERATIONS if operation in order.operations]
    if set(wanted) == set(OPERATIONS):
        wanted.remove(UPDATE)  # without an older version there is nothing to update from
    made = [_step(operation, order.version) for operation in wanted]
    if order.again:
        last = max(
            (number for number, step in enumerate(made) if step.operation == ENABLE), default=-1
        )
        made.insert(last + 1, _step(ENABLE, order.version))
    return made


def _update(order: Order) -> list[Step]:
    old, new = order.old_version, order.version
    update = {
        "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE": "0",
        "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": old,
        "VERSION": new,
    }
    gone = {"AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE": "0"}
    return [
        _step(INSTALL, old),
        _step(ENABLE, old),
        _step(DISABLE, old),
        Step(UPDATE, new, update),
        _step(UNINSTALL, old),
        Step(INSTALL, new, gone),
        Step(ENABLE, new, gone),
    ]


def _step(operation: str, version: str) -> Step:
    is_new = operation in (INSTALL, ENABLE)
    said = {"AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE": _NOT_RUN} if is_new else {}
    return Step(operation, version, said)


def result_folder(path: Path) -> Path:
    """Where output and files of a run of ``path`` go: beside it, `<name>.run`."""
    return Path(f"{path.resolve().name.removesuffix('.zip')}.run")
