"""Desired and recorded state of one handler -> its next operations, in order. Pure (spec:
extensions §3.2).

The lane carries out the first step, records it, and plans again: so the plan made after a crash is
the plan that was cut off. An operation is named by its key; one whose outcome is recorded is never
planned again.
"""

from __future__ import annotations

from _blake2 import blake2b  # hashlib would load OpenSSL, 1 MiB in every resident runner
from collections.abc import Mapping
from types import MappingProxyType
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
# ours alone: its UNINSTALL succeeded, its folder is still there; others read `NotInstalled`
UNINSTALLED = "Uninstalled"
CONFIG_ERRORS = "Ran into config errors"
PRESENT = (INSTALLED, ENABLED)
INSTALL, ENABLE, DISABLE, UPDATE, UNINSTALL = "install", "enable", "disable", "update", "uninstall"


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


class UpdateMode(Record):
    """What the manifest of a version says of updates to it."""

    installs: bool = True
    """INSTALL follows the old version's UNINSTALL."""
    continues: bool = False
    """Failures of the old version's commands do not stop the update."""


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
    disabled: frozenset[str] = frozenset()
    """Multi-config: extensions whose DISABLE succeeded and whose files are still there."""
    modes: Mapping[str, UpdateMode] = MappingProxyType({})
    """Of the versions whose package was unpacked by us."""


class Fetch(Record):
    """Get the package, verify, unpack, initialise (`D` of the table)."""

    version: str


class Run(Record):
    """Write the settings when ``writes_settings`` (`S`), then run one command."""

    key: OperationKey
    settings: ExtensionGoal | None
    """None: a handler without settings."""
    writes_settings: bool
    update: tuple[str, str] | None = None
    """UPDATE alone: from this version to that one, whose folder gets the settings, and what the
    handler remembers of the old one.
    """
    extensions: tuple[str, ...] = ()
    """UPDATE alone: all of the goal state, in its order."""


class Remove(Record):
    """The folder of a version goes, without a command."""

    version: str


class Replace(Record):
    """The old version is uninstalled: its folder goes, the new one takes its place."""

    old: str
    new: str
    installs: bool
    """INSTALL of the new one follows; else it counts as installed."""


class Forget(Record):
    """A multi-config extension is disabled: its files go (row 17)."""

    version: str
    extension: str


class Refuse(Record):
    """Nothing is run; this is reported."""

    code: int
    message: str


Step = Union[Fetch, Run, Forget, Remove, Replace, Refuse]


def plan(
    goal: HandlerGoal, recorded: Recorded, boot_id: str, *, spelling: str = ""
) -> tuple[Step, ...]:
    """The steps that lead from ``recorded`` to ``goal``, the next one first; empty when nothing is
    left to do.

    ``spelling`` is the handler's name as the first goal state wrote it. After a failed operation
    its dependents in the same goal state are not planned; the next goal state starts over.
    """
    refusal = _refusal(goal)
    if refusal is not None:
        return (refusal,)
    name = spelling or goal.name
    if goal.state == "uninstall":
        return _plan_uninstalled(_Context(goal, recorded, boot_id, name, goal.version))
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


def _refusal(goal: HandlerGoal) -> Refuse | None:
    problem = goal.error or bad_names(goal)
    if problem:
        # who parsed the goal state may have said so already
        said = problem.startswith(CONFIG_ERRORS)
        return Refuse(handler_errors.UNKNOWN, problem if said else f"{CONFIG_ERRORS}: {problem}")
    if goal.state not in ("enabled", "disabled", "uninstall"):
        return Refuse(
            handler_errors.UNKNOWN,
            f"Ran into config errors: unknown requested state {goal.state[:40]!r} of {goal.name}",
        )
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
    """Rows 1-9, 16-23: the wanted version is there, replaces another one, or is new."""
    wanted = _wanted(context.goal)
    if context.state in PRESENT:
        return _plan_present(context, wanted)
    old = _present(context.recorded, (*PRESENT, UNINSTALLED), but=context.version)
    if not wanted:
        # every extension is to be deleted: that needs no other version
        return _plan_deletions(context._replace(version=old)) if old else ()
    if old:
        return _plan_update(context, old, wanted)
    install = context.run(INSTALL, wanted[0], writes_settings=True)
    if context.outcome(install) is False:
        return ()
    steps: list[Step] = []
    if context.outcome(install) is None:
        is_unpacked = context.recorded.unpacked.get(context.version) == context.goal.goal_state_id
        steps = [install] if is_unpacked else [Fetch(context.version), install]
    return (*steps, *_plan_deletions(context), *_plan_enables(context, wanted))


def _plan_present(context: _Context, wanted: list[ExtensionGoal | None]) -> tuple[Step, ...]:
    steps = (*_plan_deletions(context), *_plan_enables(context, wanted))
    is_whole = all(context.outcome(_enable(context, settings)) for settings in wanted)
    if steps or not wanted or not is_whole:
        return steps
    others = (version for version in context.recorded.states if version != context.version)
    return tuple(Remove(version) for version in sorted(others, key=handler_names.version_key))


def _plan_update(
    context: _Context, old: str, wanted: list[ExtensionGoal | None]
) -> tuple[Step, ...]:
    """DISABLE (old), UPDATE, UNINSTALL (old), INSTALL, ENABLE: the order is the contract, and what
    fails stops it where the new manifest does not say otherwise. In a downgrade UPDATE is the
    higher version's: only the newer code knows how to go back (§3.5).
    """
    recorded, new, first = context.recorded, context.version, wanted[0]
    mode, before = recorded.modes.get(new, UpdateMode()), context._replace(version=old)
    is_downgrade = handler_names.version_key(new) < handler_names.version_key(old)
    steps: list[Step] = [] if recorded.unpacked.get(new) else [Fetch(new)]
    if before.state != UNINSTALLED:
        update = (before if is_downgrade else context).run(UPDATE, first, writes_settings=True)
        uninstall = before.run(UNINSTALL, first, writes_settings=False)
        names = tuple(one.name for one in context.goal.extensions)
        for run, may_fail in (
            *((disable, mode.continues) for disable in _disables(before, first)),
            (update._replace(update=(old, new), extensions=names), False),
            (uninstall, mode.continues),
        ):
            outcome = context.outcome(run)
            if outcome is None:
                steps.append(run)
            elif not outcome and not may_fail:
                return ()
    steps.append(Replace(old, new, mode.installs))
    if mode.installs:
        steps.append(context.run(INSTALL, first, writes_settings=True))
    return (*steps, *_plan_enables(context, wanted))


def _plan_uninstalled(context: _Context) -> tuple[Step, ...]:
    """Rows 12-14. What fails is recorded and keeps nothing: a handler that cannot be removed would
    block the platform for 90 minutes.
    """
    recorded = context.recorded
    removals = [Remove(version) for version in sorted(recorded.states)]
    version = _present(recorded, PRESENT)
    if not version:
        return tuple(removals)
    present = context._replace(version=version)
    first = context.goal.extensions[0] if context.goal.extensions else None
    uninstall = present.run(UNINSTALL, first, writes_settings=False)
    runs = (*_disables(present, first), uninstall)
    return (*(run for run in runs if present.outcome(run) is None), *removals)


def _disables(context: _Context, first: ExtensionGoal | None) -> list[Run]:
    """DISABLE of all that is enabled: of each extension, in the goal state's order, or of the
    handler.
    """
    if context.state != ENABLED:
        return []
    if not context.recorded.extensions:
        return [context.run(DISABLE, first, writes_settings=False)]
    known = {extension.name: extension for extension in context.goal.extensions}
    others = sorted(context.recorded.extensions - set(known))
    names = [name for name in known if name in context.recorded.extensions]
    several = context._replace(goal=context.goal._replace(multi_config=True))
    return [
        several.run(
            DISABLE,
            known.get(name, ExtensionGoal(name, 0, "disabled", "null")),
            writes_settings=False,
        )
        for name in (*names, *others)
    ]


def _present(recorded: Recorded, states: tuple[str, ...], *, but: str = "") -> str:
    """The highest version in one of ``states``; empty: none."""
    found = [name for name, state in recorded.states.items() if state in states and name != but]
    return max(found, key=handler_names.version_key, default="")


def _wanted(goal: HandlerGoal) -> list[ExtensionGoal | None]:
    """What is to be enabled, lower dependency levels first; None stands for a handler without
    settings.
    """
    if not goal.extensions:
        return [None]
    ordered = sorted(goal.extensions, key=lambda extension: extension.dependency_level)
    return [extension for extension in ordered if not _is_deleted(goal, extension)]


def _enable(context: _Context, settings: ExtensionGoal | None) -> Run:
    return context.run(ENABLE, settings, writes_settings=True)


def _plan_enables(context: _Context, wanted: list[ExtensionGoal | None]) -> tuple[Step, ...]:
    enables = [_enable(context, settings) for settings in wanted]
    return tuple(enable for enable in enables if context.outcome(enable) is None)


def _plan_deletions(context: _Context) -> tuple[Step, ...]:
    steps: list[Step] = []
    for extension in context.goal.extensions:
        if _is_deleted(context.goal, extension):
            steps += _plan_deleted(context, extension)
    return tuple(steps)


def _is_deleted(goal: HandlerGoal, extension: ExtensionGoal) -> bool:
    return goal.multi_config and extension.state == "disabled"


def _plan_deleted(context: _Context, extension: ExtensionGoal) -> list[Step]:
    if extension.name in context.recorded.disabled:
        return [Forget(context.version, extension.name)]
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
