"""Desired and recorded state of one handler -> its next operations, in order. Pure (spec:
extensions §3.2, rows 1-4, 10, 11, 16-18).

The lane carries out the first step, records it, and plans again: so the plan made after a crash is
the plan that was cut off. An operation is named by its key; one whose outcome is recorded is never
planned again.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL, 1 MiB in every resident runner
from collections.abc import Mapping
from typing import Union

from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import ExtensionGoal, HandlerGoal
from waagent.protocol.handler import handler_errors, handler_names

NOT_INSTALLED, INSTALLED, ENABLED, FAILED_UPGRADE = (
    "NotInstalled",
    "Installed",
    "Enabled",
    "FailedUpgrade",
)
STATES = (NOT_INSTALLED, INSTALLED, ENABLED, FAILED_UPGRADE)
INSTALL, ENABLE, DISABLE = "install", "enable", "disable"


class OperationKey(Record):
    """What makes an operation the same one (spec: extensions §3.8): within it a command runs at
    most once.
    """

    handler: str
    version: str
    operation: str
    extension: str
    sequence: int
    goal_state_id: str
    boot_id: str

    @property
    def id(self) -> str:
        """Name of its folder below <lib>/operations; says nothing that a handler's `pkill -f` could
        match.
        """
        fields = (
            self.handler.lower(),
            self.version,
            self.operation,
            self.extension,
            str(self.sequence),
            self.goal_state_id,
            self.boot_id,
        )
        return str(
            blake2b("\0".join(fields).encode("utf-8", "replace"), digest_size=16).hexdigest()
        )


class Recorded(Record):
    """What the journal and the handler's folders say."""

    states: Mapping[str, str]
    """Version as its folder spells it -> one of STATES."""
    extensions: frozenset[str]
    """Multi-config: names of the extensions that are enabled."""
    unpacked: Mapping[str, str]
    """Version -> goal state id for which its package was unpacked whole."""
    outcomes: Mapping[str, bool]
    """Operation id -> whether it succeeded."""


class Fetch(Record):
    """Get the package, verify, unpack, initialise (`D` of the table)."""

    version: str


class Run(Record):
    """Write the settings when ``writes_settings`` (`S`), then run one command."""

    key: OperationKey
    settings: ExtensionGoal | None
    """None: a handler without settings."""
    writes_settings: bool


class Forget(Record):
    """A multi-config extension is disabled: its files go (row 17)."""

    version: str
    extension: str


class Refuse(Record):
    """Nothing is run; this is reported."""

    code: int
    message: str


Step = Union[Fetch, Run, Forget, Refuse]


def plan(
    goal: HandlerGoal, recorded: Recorded, boot_id: str, *, spelling: str = ""
) -> tuple[Step, ...]:
    """The steps that lead from ``recorded`` to ``goal``, the next one first; empty when nothing is
    left to do.

    ``spelling`` is the handler's name as the first goal state wrote it. After a failed operation
    its dependents in the same goal state are not planned; the next goal state starts over.
    """
    refusal = _refusal(goal, recorded)
    if refusal is not None:
        return (refusal,)
    if goal.state == "uninstall":
        return ()  # nothing on disk: nothing to remove
    name = spelling or goal.name
    if goal.state == "disabled":
        version = _version_to_disable(goal, recorded)
        return _plan_disabled(_Context(goal, recorded, boot_id, name, version))
    version = installed_as(goal.version, recorded.states)
    return _plan_enabled(_Context(goal, recorded, boot_id, name, version))


def installed_as(version: str, states: Mapping[str, str]) -> str:
    """How the folder of ``version`` is spelled: `1.0` is there already when `1.0.0.0` is wanted
    (row 9).
    """
    wanted = handler_names.version_key(version)
    for present in sorted(states, key=lambda spelled: spelled != version):
        if handler_names.version_key(present) == wanted:
            return present
    return version


def refuse_disabled(goal: HandlerGoal, configuration_file: str) -> Refuse:
    """Extensions.Enabled is off: nothing is run for ``goal``."""
    is_enable = goal.state == "enabled"
    return Refuse(
        handler_errors.ENABLE_FAILED if is_enable else handler_errors.DISABLE_FAILED,
        "Extension will not be processed since extension processing is disabled. To enable"
        f" extension processing, set Extensions.Enabled=y in '{configuration_file}'",
    )


class _Context(Record):
    goal: HandlerGoal
    recorded: Recorded
    boot_id: str
    name: str
    version: str

    @property
    def state(self) -> str:
        return self.recorded.states.get(self.version, NOT_INSTALLED)

    def run(self, operation: str, settings: ExtensionGoal | None, *, writes_settings: bool) -> Run:
        extension = settings.name if settings is not None and self.goal.multi_config else ""
        sequence = settings.sequence if settings is not None else 0
        key = OperationKey(
            self.name,
            self.version,
            operation,
            extension,
            sequence,
            self.goal.goal_state_id,
            self.boot_id,
        )
        return Run(key, settings, writes_settings)

    def outcome(self, step: Run) -> bool | None:
        return self.recorded.outcomes.get(step.key.id)


def _refusal(goal: HandlerGoal, recorded: Recorded) -> Refuse | None:
    problem = goal.error or bad_names(goal)
    if problem:
        return Refuse(handler_errors.UNKNOWN, f"Ran into config errors: {problem}")
    if goal.state not in ("enabled", "disabled", "uninstall"):
        return Refuse(
            handler_errors.UNKNOWN,
            f"Ran into config errors: unknown requested state {goal.state[:40]!r} of {goal.name}",
        )
    present = {
        version for version, state in recorded.states.items() if state in (INSTALLED, ENABLED)
    }
    if goal.state == "uninstall" and any(
        state != NOT_INSTALLED for state in recorded.states.values()
    ):
        return Refuse(
            handler_errors.UNINSTALL_FAILED,
            f"uninstall of {goal.name} is not in this version of the agent; nothing was run or"
            " removed",
        )
    wanted = handler_names.version_key(goal.version)
    others = sorted(
        (version for version in present if handler_names.version_key(version) != wanted),
        key=handler_names.version_key,
    )
    if goal.state == "enabled" and others:
        text = (
            f"update of {goal.name} from {others[-1]} to {goal.version} is not in this version of"
            f" the agent; {others[-1]} stays as it is"
        )
        return Refuse(handler_errors.UPDATE_FAILED, text)
    return None


def bad_names(goal: HandlerGoal) -> str:
    """Why names and numbers of ``goal`` must not become files; empty: they may. Ask before anything
    is made of it.
    """
    try:
        handler_names.refuse_bad_name(goal.name)
        handler_names.refuse_bad_version(goal.version)
        for extension in goal.extensions if goal.multi_config else ():
            handler_names.refuse_bad_extension(extension.name)
    except handler_errors.NameRefused as error:
        return str(error)
    if not goal.multi_config and len(goal.extensions) > 1:
        return f"{len(goal.extensions)} settings for {goal.name}, which takes one"
    if any(extension.sequence < 0 for extension in goal.extensions):
        return "a sequence number below 0"
    return ""


def _plan_enabled(context: _Context) -> tuple[Step, ...]:
    goal = context.goal
    steps: list[Step] = []
    ordered = sorted(goal.extensions, key=lambda extension: extension.dependency_level)
    wanted: list[ExtensionGoal | None] = [
        extension for extension in ordered if not _is_deleted(goal, extension)
    ]
    if context.state not in (INSTALLED, ENABLED):
        if goal.extensions and not wanted:
            return ()  # every extension of a handler that is not there is to be deleted
        install = context.run(INSTALL, wanted[0] if wanted else None, writes_settings=True)
        if context.outcome(install) is False:
            return ()
        if context.outcome(install) is None:
            if context.recorded.unpacked.get(context.version) != goal.goal_state_id:
                steps.append(Fetch(context.version))
            steps.append(install)
    for extension in goal.extensions:
        if _is_deleted(goal, extension):
            steps += _plan_deleted(context, extension)
    if not goal.extensions:
        wanted = [None]
    for settings in wanted:
        enable = context.run(ENABLE, settings, writes_settings=True)
        if context.outcome(enable) is None:
            steps.append(enable)
    return tuple(steps)


def _is_deleted(goal: HandlerGoal, extension: ExtensionGoal) -> bool:
    return goal.multi_config and extension.state == "disabled"


def _plan_deleted(context: _Context, extension: ExtensionGoal) -> list[Step]:
    if extension.name not in context.recorded.extensions:
        return []
    disable = context.run(DISABLE, extension, writes_settings=False)
    steps: list[Step] = [disable] if context.outcome(disable) is None else []
    return [*steps, Forget(context.version, extension.name)]


def _version_to_disable(goal: HandlerGoal, recorded: Recorded) -> str:
    enabled = [version for version, state in recorded.states.items() if state == ENABLED]
    asked = installed_as(goal.version, recorded.states)
    return asked if asked in enabled or not enabled else max(enabled, key=handler_names.version_key)


def _plan_disabled(context: _Context) -> tuple[Step, ...]:
    if context.state != ENABLED:
        return ()
    extension = context.goal.extensions[0] if context.goal.extensions else None
    disable = context.run(DISABLE, extension, writes_settings=False)
    return (disable,) if context.outcome(disable) is None else ()
