"""All lanes together: who looks when, and what is said of them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waagent.distro import files, processes
from waagent.distro.cgroups import trees
from waagent.distro.operations.operation_tree import operation_tree
from waagent.distro.paths import Paths
from waagent.protocol.bus.topics import ExtensionReport, GoalStateSummary, HandlerGoal
from waagent.protocol.handler import handler_errors, handler_names
from waagent.protocol.handler.status_file import TERMINAL
from waagent.protocol.operations_file import Operation
from waagent.workers.extension_runner import lane_view, operations_file, plan
from waagent.workers.extension_runner.dependencies import GO, WAIT, Key, Node, Verdict, judge
from waagent.workers.extension_runner.file_processes import FileProcesses
from waagent.workers.extension_runner.handler_report import Extension, Situation, reports
from waagent.workers.extension_runner.lane import Lane
from waagent.workers.extension_runner.lane_context import Goal, LaneContext
from waagent.workers.extension_runner.lane_guard import LaneGuard
from waagent.workers.extension_runner.launcher import Launcher
from waagent.workers.extension_runner.looking import LIMIT, Looking
from waagent.workers.extension_runner.reporter import Reporter
from waagent.workers.extension_runner.status_collector import Collector, Watch
from waagent.workers.extension_runner.together import fit_together
from waagent.workers.extension_runner.tracking import Tracking

if TYPE_CHECKING:
    from waagent.protocol.bus.bus_loop import Timer
    from waagent.workers.runtime import Worker

TICK_S = 0.5  # between two looks at operations that an earlier runner started
REFRESH_S = 0.02  # several changes of one moment make one look
STATUS_S = 1.0  # between two looks at status files that are not terminal, for a while
A_WHILE_S = 60.0  # since the last change; then once a period where nothing of the handler lives
QUIET_S = 30.0  # between two looks at status files that are all terminal


class Runner:
    """The lanes and what feeds them. Invariant: nothing here waits, so no handler can delay
    another.
    """

    def __init__(self, worker: Worker, client: Any, paths: Paths, period_s: float) -> None:
        """``period_s`` is Extensions.GoalStatePeriod: how often a status may be reported."""
        self._worker, self._paths = worker, paths
        without = os.environ.get("WAAGENT_WITHOUT", "").split(",")
        systemd = "systemd" not in without and Path("/run/systemd/system").is_dir()
        tree = operation_tree(
            enabled="cgroups" not in without,
            name=f"{trees.tree_name(str(paths.root))}-operations",
        )
        self._operations = Tracking(
            paths,
            tree,
            worker.log,
            Launcher(worker, self._look_at_operation),
            systemd=systemd,
            subreaper="subreaper" not in without,
        )
        self._files = FileProcesses(worker)
        self._guard = LaneGuard(worker, Looking(paths.run, worker.log), self._lane_opened_or_closed)
        self._goal = Goal()
        self._context = LaneContext(
            worker,
            client,
            self._operations,
            self._files,
            paths,
            processes.boot_id(),
            time.monotonic,
            time.time_ns,
            self._guard.do,
            self._changed,
            self._may_start,
            self._goal,
        )
        self._lanes: dict[str, Lane] = {}
        self._collector = Collector(self._files, time.monotonic, self._refresh_soon)
        self._reporter = Reporter(worker, client)
        self._said: dict[str, tuple[ExtensionReport, ...]] = {}
        self._cut: dict[tuple[str, int], str] = {}
        self._impossible: dict[str, tuple[ExtensionReport, ...]] = {}
        self._is_refreshing = self._is_ticking = False
        self._period_s = period_s
        self._look_timer: Timer | None = None
        self._look_wait_s = 0.0
        self._moved_at = time.monotonic()

    # what comes in

    def configure(self) -> None:
        """The options as they are now."""
        self._goal.is_enabled = bool(self._worker.configuration.get("Extensions.Enabled", True))
        for lane in self._lanes.values():
            lane.turn_soon()

    def adopt(self) -> None:
        """Take up what earlier runners began; what one of them ended at comes last."""
        for folder in (self._paths.operations, self._paths.operations / "handlers"):
            files.make_folder(folder, 0o700)
        folders = self._operations.folders()
        for folder in sorted(folders, key=lambda folder: self._guard.looking.deaths(folder.name)):
            if self._guard.looking.deaths(folder.name) < LIMIT:
                self._adopt(folder)
            else:
                self._worker.log.error("operation is left alone id=%s: see above", folder.name)
        self._tick_soon()
        self._refresh_soon()

    def _adopt(self, folder: Path) -> None:
        before = self._guard.looking.begin(folder.name)
        try:
            key = self._operations.key_of(folder)
        except OSError as error:
            self._worker.log.warning("operation is left alone id=%s: %s", folder.name, error)
            return
        finally:
            self._guard.looking.end(before)
        if key is None:
            return
        lane = self._lane(key.handler)

        def take_up() -> None:
            under_way = self._operations.found(folder, key, self._context.boot_id)
            if under_way is not None:
                lane.adopt(under_way)

        self._guard.do_first(lane, take_up)

    def summarised(self, summary: GoalStateSummary) -> None:
        """A goal state came; its handlers follow one by one."""
        if summary.handlers:
            self._files.prepare()  # packages and status files will be looked at: 0.1 s saved
        self._goal.summary = summary
        if summary.extensions_complete and not summary.unsupported_features:
            present = {name.lower() for name in summary.handlers}
            self._impossible = {
                key: said for key, said in self._impossible.items() if key in present
            }
            for name in self._handlers_on_disk():
                if name.lower() not in present:
                    self._lane(name)
            for key in [key for key in self._lanes if key not in present]:
                self._vanish(key)
        try:
            self._operations.prune(self._ids_in_use())
        except OSError as error:
            self._worker.log.warning("old operations are not removed: %s", error)
        for lane in self._lanes.values():
            lane.turn_soon()

    def accepted(self, goal: HandlerGoal) -> None:
        """One handler's desired state. Bad names end here: no path is made of them."""
        key, problem = goal.name.lower(), plan.bad_names(goal)
        self._impossible.pop(key, None)
        if problem:
            self._worker.log.warning(
                "handler not processed handler=%r reason=%r", goal.name[:128], problem
            )
            refusal = plan.Refuse(handler_errors.UNKNOWN, f"Ran into config errors: {problem}")
            extensions = tuple(Extension(one) for one in goal.extensions)
            self._impossible[key] = reports(
                Situation(
                    goal, goal.name, goal.version, None, refusal, "", False, extensions, 0.0, 0
                )
            )
            if key in self._lanes:
                self._lanes[key].leave()
        else:
            lane = self._lane(goal.name)
            self._guard.tell_goal_state(lane, goal)
            lane.accept(goal)
        self._refresh_soon()

    def look_at_status(self) -> None:
        """The periodic look at status files: each period while something may change, rarely when
        all is terminal.
        """
        self._look_timer = None
        self._turn_waiting()
        self._collect()
        self._refresh_soon()
        self._look_again()

    def _look_again(self) -> None:
        wait_s = self._period_s
        if time.monotonic() - self._moved_at < A_WHILE_S or self._is_anything_alive():
            wait_s = min(wait_s, STATUS_S)
        if self._is_quiet():
            wait_s = QUIET_S
        if self._look_timer is not None:
            if wait_s >= self._look_wait_s:
                return
            self._look_timer.cancel()
        self._look_wait_s = wait_s
        self._look_timer = self._worker.loop.after(wait_s, self.look_at_status)

    def _is_anything_alive(self) -> bool:
        """An operation that has not said its last word, or something that one left behind."""
        return any(
            self._guard.attempt(lane, lane.may_still_speak, False) for lane in self._lanes.values()
        )

    def _is_quiet(self) -> bool:
        if any(lane.is_busy or lane.activity() for lane in self._lanes.values()):
            return False
        return all(
            one.status is None or state in TERMINAL
            for said in self._said.values()
            for one, state in zip(said, operations_file.reported_states(said).values())
        )

    # lanes

    def _lane(self, name: str) -> Lane:
        key = name.lower()
        if key not in self._lanes:
            lane = self._lanes[key] = Lane(self._context, name)
            self._guard.enter(lane)
            self._guard.do_first(lane, lane.read_journal)
        return self._lanes[key]

    def _may_start(self, goal: HandlerGoal, extension: str) -> Verdict:
        """Whether what this extension depends on is as far; nothing that depends starts before
        every handler's goal is known.
        """
        mine = next(
            (one for one in goal.extensions if not goal.multi_config or one.name == extension), None
        )
        if mine is None or (mine.dependency_level <= 0 and not mine.depends_on):
            return Verdict(GO)
        nodes: dict[Key, Node] = {}
        for name in self._goal.summary.handlers if self._goal.summary is not None else ():
            lane = self._lanes.get(name.lower())
            newest = lane.newest if lane is not None else None
            if name.lower() in self._impossible:
                nodes[name.lower(), ""] = Node(0, (), "error")
            elif lane is None or newest is None or newest.goal_state_id != goal.goal_state_id:
                return Verdict(WAIT, "waiting for the other handlers of the goal state")
            elif newest.state == "enabled":
                nodes.update(self._nodes(lane, newest))
        key = (goal.name.lower(), extension)
        return (
            judge(key, nodes, time.monotonic() - self._lane(goal.name).goal_since)
            if key in nodes
            else Verdict(GO)
        )

    def _nodes(self, lane: Lane, goal: HandlerGoal) -> dict[Key, Node]:
        """The extensions of one handler; without a state while an older goal state keeps it
        busy.
        """
        handler = goal.name.lower()
        said = self._reports_of(lane) if goal is lane.goal else ()
        states = operations_file.reported_states(said)
        if not goal.extensions:
            outcome = self._guard.attempt(lane, lambda: lane.outcome(""), None) if said else None
            if outcome is not None and outcome.succeeded:
                state = "success" if outcome.operation == plan.ENABLE else ""
            else:
                state = "error" if outcome is not None or lane.parked is not None else ""
            return {(handler, ""): Node(0, (), state)}
        nodes = {}
        for one in goal.extensions:
            extension = one.name if goal.multi_config else ""
            if not (goal.multi_config and one.state == "disabled"):
                needs = tuple((need.handler.lower(), need.extension) for need in one.depends_on)
                nodes[handler, extension] = Node(
                    one.dependency_level, needs, states.get(extension, "")
                )
        return nodes

    def _reports_of(self, lane: Lane) -> tuple[ExtensionReport, ...]:
        def made() -> tuple[ExtensionReport, ...]:
            situation = lane_view.situation(lane, self._collector)
            return reports(situation) if situation is not None else ()

        nothing: tuple[ExtensionReport, ...] = ()
        said = self._guard.attempt(lane, made, nothing)
        if lane.parked is None:
            return said
        situation = lane_view.parked_situation(lane)
        return reports(situation) if situation is not None else ()

    def _vanish(self, key: str) -> None:
        """No longer in the goal state, of which all is known."""
        lane = self._lanes[key]
        if lane.goal is not None:
            self._worker.log.warning(
                "handler is no longer in the goal state, its folders are removed handler=%s",
                lane.journal.name,
            )
        lane.leave()
        self._guard.do_first(lane, lane.vanish)

    def _drop_vanished(self) -> None:
        for key in [key for key, lane in self._lanes.items() if lane.has_vanished]:
            lane = self._lanes.pop(key)
            try:
                lane.journal.delete()
            except OSError as error:
                self._worker.log.debug("journal of a removed handler stays: %s", error)

    def _handlers_on_disk(self) -> set[str]:
        """Names of the handlers that have a folder below <lib>, which is ours; none is entered."""
        names = os.listdir(self._paths.library) if self._paths.library.is_dir() else ()
        found = (handler_names.split_folder(name) for name in names)
        return {parts[0] for parts in found if parts is not None}

    def _turn_waiting(self) -> None:
        for lane in self._lanes.values():
            if lane.is_waiting_for_others:
                lane.turn_soon()

    def _ids_in_use(self) -> set[str]:
        used = {identity for lane in self._lanes.values() for identity in lane.journal.outcomes}
        return used | {
            lane.under_way.key.id for lane in self._lanes.values() if lane.under_way is not None
        }

    # looking

    def _look_at_operation(self, identity: str) -> None:
        """Its shim has ended, or was not started."""
        for lane in list(self._lanes.values()):
            if lane.under_way is not None and lane.under_way.key.id == identity:
                self._guard.do(lane, lane.observe)
        self._tick_soon()

    def _changed(self, lane: Lane) -> None:
        self._moved_at = time.monotonic()
        if lane.under_way is None:
            self._collector.collect_more(self._watches(lane))
        self._refresh_soon()

    def _lane_opened_or_closed(self) -> None:
        self._tick_soon()
        self._refresh_soon()

    def _tick_soon(self) -> None:
        if not self._is_ticking and self._unannounced():
            self._is_ticking = True
            self._worker.loop.after(TICK_S, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        for lane in self._unannounced():
            self._guard.do(lane, lane.poll)
        self._tick_soon()

    def _unannounced(self) -> list[Lane]:
        """Those whose operation was started by an earlier runner: nobody tells its end."""
        return [
            lane
            for lane in self._lanes.values()
            if lane.under_way is not None
            and not self._guard.is_closed(lane)
            and not self._operations.is_announced(lane.under_way)
        ]

    def _collect(self) -> None:
        self._collector.collect(
            [watch for lane in self._lanes.values() for watch in self._watches(lane)]
        )

    def _watches(self, lane: Lane) -> list[Watch]:
        return self._guard.attempt(lane, lambda: lane_view.watches(lane), [])

    # saying

    def _refresh_soon(self) -> None:
        if not self._is_refreshing:
            self._is_refreshing = True
            self._worker.loop.after(REFRESH_S, self._refresh)

    def _refresh(self) -> None:
        # else a failed command would be told before its handler's own words
        self._is_refreshing = False
        if self._collector.is_reading:
            return  # it calls again
        self._drop_vanished()
        before, self._said = self._said, dict(self._impossible)
        for key, lane in self._lanes.items():
            said = self._reports_of(lane)
            if said:
                self._said[key] = said
        if before != self._said:
            self._turn_waiting()
        said_by_all = [report for said in self._said.values() for report in said]
        fitting, self._cut = fit_together(said_by_all, self._cut)
        self._reporter.say(fitting)
        running = sum(lane.under_way is not None for lane in self._lanes.values())
        waiting = sum(
            lane.under_way is None and bool(lane.activity()) for lane in self._lanes.values()
        )
        watched = f"watching {len(self._lanes)} handler{'' if len(self._lanes) == 1 else 's'}"
        self._worker.supervisor.doing(
            f"{running} running, {waiting} waiting" if running or waiting else watched
        )
        self._write_view()
        self._look_again()

    def _rows(self, lane: Lane, states: Mapping[str, str]) -> list[Operation]:
        nothing: list[Operation] = []
        made = self._guard.attempt(lane, lambda: lane_view.rows(lane, states), nothing)
        return made if lane.parked is None else lane_view.parked_rows(lane, states)

    def _write_view(self) -> None:
        rows: list[Operation] = []
        for key, lane in self._lanes.items():
            states = operations_file.reported_states(self._said.get(key, ()))
            rows += self._rows(lane, states)
        goal_state = self._goal.summary.goal_state_id if self._goal.summary is not None else ""
        try:
            operations_file.write_view(
                self._paths.operations_view, goal_state, time.monotonic(), rows
            )
        except OSError as error:
            self._worker.log.debug("view of operations is not written: %s", error)
