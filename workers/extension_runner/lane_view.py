"""One lane as others see it: its status files, what the platform is told, what `waagent-ps
extensions` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from waagent.protocol.bus.topics import ExtensionGoal, HandlerGoal
from waagent.protocol.handler.settings_files import file_prefix
from waagent.protocol.handler.status_file import TERMINAL
from waagent.protocol.operations_file import Operation
from waagent.workers.extension_runner import operations_file, plan
from waagent.workers.extension_runner.handler_files import Folders
from waagent.workers.extension_runner.handler_report import Extension, Situation
from waagent.workers.extension_runner.status_collector import Collector, Watch

if TYPE_CHECKING:
    from waagent.workers.extension_runner.lane import Lane

KEPT_ROWS = 12  # of a handler


def watches(lane: Lane) -> list[Watch]:
    """The status files of the extensions that are wanted."""
    goal = shown_goal(lane)
    if goal is None or lane.parked is not None:
        return []
    name = lane.journal.name
    folder = Folders(lane.paths, name, _version(lane, goal))
    found = []
    for one in goal.extensions:
        extension = one.name if goal.multi_config else ""
        if not (goal.multi_config and one.state == "disabled"):
            found.append(
                Watch(
                    f"{name}.{extension}",
                    str(folder.status),
                    f"{file_prefix(extension, one.sequence)}.status",
                    extension or name,
                )
            )
    return found


def situation(lane: Lane, collector: Collector) -> Situation | None:
    """Everything for the reports; None while nothing is wanted and nothing is under way."""
    goal = shown_goal(lane)
    if goal is None:
        return None
    activity = lane.activity()
    if goal.state == "uninstall" and not lane.journal.versions and not activity:
        return None  # gone: that is what the platform waits for
    files_of = {watch.key: watch for watch in watches(lane)}
    extensions = []
    for one in goal.extensions:
        extension = one.name if goal.multi_config else ""
        watch = files_of.get(f"{lane.journal.name}.{extension}")
        seen = collector.seen(watch) if watch is not None else None
        # while something is done, or the status is terminal, no record is read for that
        is_open = not activity and (seen is None or seen.state not in TERMINAL)
        is_alive = is_open and lane.is_anything_alive()
        extensions.append(Extension(one, lane.outcome(extension), seen, is_alive))
    return Situation(
        goal,
        lane.journal.name,
        _version(lane, goal),
        lane.journal.handler,
        lane.refusal,
        activity,
        lane.under_way is not None and lane.under_way.key.operation == plan.INSTALL,
        tuple(extensions),
        lane.now(),
        lane.wall_ns(),
    )


def parked_situation(lane: Lane) -> Situation | None:
    """What is reported of a lane that cannot be looked at: its goal, and why. It reads nothing that
    may have been the cause.
    """
    goal = shown_goal(lane)
    if goal is None or lane.parked is None:
        return None
    extensions = tuple(Extension(one) for one in goal.extensions)
    return Situation(
        goal, lane.name, goal.version, None, lane.parked, "", False, extensions, 0.0, 0
    )


def rows(lane: Lane, reported: Mapping[str, str]) -> list[Operation]:
    """What `waagent-ps extensions` shows: what is under way first, then the last outcomes, the
    newest first.
    """
    goal = shown_goal(lane)
    if goal is None:
        return []
    name, version = lane.journal.name, _version(lane, goal)
    said = reported.get("", next(iter(reported.values()), ""))
    made, shown = [], set()
    if lane.under_way is not None:
        key, seen = lane.under_way.key, lane.look_at_operation(lane.under_way)
        shown.add(key.extension)
        made.append(
            operations_file.row_running(
                lane.under_way, lane.now(), seen.pid, seen.cgroup, reported.get(key.extension, "")
            )
        )
    if lane.refusal is not None:
        made.append(
            operations_file.row_waiting(name, version, lane.refusal.message, said, is_failed=True)
        )
    elif lane.activity() and lane.under_way is None:
        made.append(operations_file.row_waiting(name, version, lane.activity(), said))
    for outcome in reversed(list(lane.journal.outcomes.values())[-KEPT_ROWS:]):
        told = "" if outcome.extension in shown else reported.get(outcome.extension, said)
        shown.add(outcome.extension)
        made.append(operations_file.row_ended(name, outcome, told))
    return made


def parked_rows(lane: Lane, reported: Mapping[str, str]) -> list[Operation]:
    """`rows` of a lane that cannot be looked at."""
    if lane.parked is None:
        return []
    goal, said = shown_goal(lane), next(iter(reported.values()), "")
    version = goal.version if goal is not None else ""
    return [
        operations_file.row_waiting(lane.name, version, lane.parked.message, said, is_failed=True)
    ]


def shown_goal(lane: Lane) -> HandlerGoal | None:
    """What the lane follows; before it was told anything, what the operation says that it adopted
    from an earlier runner. That one is only shown, never planned from: it has no settings.
    """
    if lane.goal is not None or lane.under_way is None or not lane.is_adopted:
        return lane.goal
    key = lane.under_way.key
    return HandlerGoal(
        key.handler,
        key.version,
        "enabled",
        key.goal_state_id,
        bool(key.extension),
        (ExtensionGoal(key.extension, key.sequence, "enabled", "null"),),
    )


def _version(lane: Lane, goal: HandlerGoal) -> str:
    """As its folder spells it."""
    return plan.installed_as(goal.version, lane.journal.recorded().states)
