"""All lanes together: who looks when, and what is said of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waagent.distro import files, processes
from waagent.distro.cgroups import trees
from waagent.distro.paths import Paths
from waagent.protocol.bus.topics import ExtensionReport, GoalStateSummary, HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler.status_file import TERMINAL
from waagent.workers.extension_runner import launcher, operations_file, plan
from waagent.workers.extension_runner.dependencies import GO, WAIT, Key, Node, Verdict, judge
from waagent.workers.extension_runner.handler_report import Extension, Situation, reports
from waagent.workers.extension_runner.lanes import Goal, House, Lane
from waagent.workers.extension_runner.reporter import Reporter
from waagent.workers.extension_runner.status_collector import Collector
from waagent.workers.extension_runner.tracking import Tracking

if TYPE_CHECKING:
    from waagent.protocol.bus.bus_loop import Timer
    from waagent.workers.runtime import Worker

TICK_S = 0.25
SLOW_TICK_S = 1.0  # once an operation has run for a while
A_WHILE_S = 10.0
REFRESH_S = 0.05  # several changes of one moment make one look
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
        tree = trees.operation_tree(
            enabled="cgroups" not in without,
            name=f"{trees.tree_name(str(paths.root))}-operations",
        )
        tracking = Tracking(
            paths,
            tree,
            worker.log,
            launcher.choose(worker, systemd=systemd),
            systemd=systemd,
            subreaper="subreaper" not in without,
        )
        self._house = House(
            worker,
            client,
            tracking,
            paths,
            processes.boot_id(),
            time.monotonic,
            time.time_ns,
            self._changed,
            self._may_start,
            str(paths.configuration),
            Goal(),
        )
        self._lanes: dict[str, Lane] = {}
        self._collector = Collector(worker, time.monotonic, self._refresh_soon)
        self._reporter = Reporter(worker, client)
        self._said: dict[str, tuple[ExtensionReport, ...]] = {}
        self._impossible: dict[str, tuple[ExtensionReport, ...]] = {}
        self._is_refreshing = self._is_ticking = False
        self._period_s = period_s
        self._look_timer: Timer | None = None
        self._look_wait_s = 0.0

    # what comes in

    def configure(self) -> None:
        """The options as they are now."""
        self._house.goal.is_enabled = bool(
            self._worker.configuration.get("Extensions.Enabled", True)
        )
        for lane in self._lanes.values():
            lane.turn_soon()

    def adopt(self) -> None:
        """Take up what earlier runners began."""
        for folder in (self._paths.operations, self._paths.operations / "handlers"):
            files.make_folder(folder, 0o700)
        for under_way in self._house.operations.unfinished(self._is_recorded, self._house.boot_id):
            self._lane(under_way.key.handler).adopt(under_way)
        self._tick_soon()

    def summarised(self, summary: GoalStateSummary) -> None:
        """A goal state came; its handlers follow one by one."""
        self._house.goal.summary = summary
        if summary.extensions_complete and not summary.unsupported_features:
            present = {name.lower() for name in summary.handlers}
            self._impossible = {
                key: said for key, said in self._impossible.items() if key in present
            }
            for key in [key for key in self._lanes if key not in present]:
                self._leave(key)
        self._house.operations.prune(self._ids_in_use())
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
            self._lane(goal.name).accept(goal)
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
        wait_s = QUIET_S if self._is_quiet() else self._period_s
        if self._look_timer is not None:
            if wait_s >= self._look_wait_s:
                return
            self._look_timer.cancel()
        self._look_wait_s = wait_s
        self._look_timer = self._worker.after(wait_s, self.look_at_status)

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
            self._lanes[key] = Lane(self._house, name)
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
        for name in (
            self._house.goal.summary.handlers if self._house.goal.summary is not None else ()
        ):
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
        situation = lane.situation(self._collector) if goal is lane.goal else None
        if not goal.extensions:
            outcome = lane.outcome("") if situation is not None else None
            is_enabled = (
                outcome is not None and outcome.operation == plan.ENABLE and outcome.succeeded
            )
            is_failed = outcome is not None and not outcome.succeeded
            return {
                (handler, ""): Node(
                    0, (), "success" if is_enabled else "error" if is_failed else ""
                )
            }
        states = (
            operations_file.reported_states(reports(situation)) if situation is not None else {}
        )
        nodes = {}
        for one in goal.extensions:
            extension = one.name if goal.multi_config else ""
            if not (goal.multi_config and one.state == "disabled"):
                needs = tuple((need.handler.lower(), need.extension) for need in one.depends_on)
                nodes[handler, extension] = Node(
                    one.dependency_level, needs, states.get(extension, "")
                )
        return nodes

    def _leave(self, key: str) -> None:
        lane = self._lanes[key]
        if lane.goal is not None:
            self._worker.log.warning(
                "handler is no longer in the goal state handler=%s: removing it is not in this"
                " version of the agent, its files stay",
                lane.journal.name,
            )
        lane.leave()
        if not lane.is_busy:
            del self._lanes[key]

    def _is_recorded(self, handler: str, identity: str) -> bool:
        return identity in self._lane(handler).journal.outcomes

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

    def _changed(self, lane: Lane) -> None:
        self._tick_soon()
        if lane.under_way is None:
            self._collector.collect_more(lane.watches())
        self._refresh_soon()

    def _tick_soon(self) -> None:
        running = [lane.under_way for lane in self._lanes.values() if lane.under_way is not None]
        if running and not self._is_ticking:
            self._is_ticking = True
            youngest = max(under_way.started_at for under_way in running)
            self._worker.after(
                TICK_S if time.monotonic() - youngest < A_WHILE_S else SLOW_TICK_S, self._tick
            )

    def _tick(self) -> None:
        self._is_ticking = False
        for lane in list(self._lanes.values()):
            lane.observe()
        self._tick_soon()

    def _collect(self) -> None:
        self._collector.collect(
            [watch for lane in self._lanes.values() for watch in lane.watches()]
        )

    # saying

    def _refresh_soon(self) -> None:
        if not self._is_refreshing:
            self._is_refreshing = True
            self._worker.after(REFRESH_S, self._refresh)

    def _refresh(self) -> None:
        # else a failed command would be told before its handler's own words
        if self._collector.is_reading:
            self._worker.after(REFRESH_S, self._refresh)
            return
        self._is_refreshing = False
        before, self._said = self._said, dict(self._impossible)
        for key, lane in self._lanes.items():
            situation = lane.situation(self._collector)
            if situation is not None:
                self._said[key] = reports(situation)
        if before != self._said:
            self._turn_waiting()
        self._reporter.say(report for said in self._said.values() for report in said)
        running = sum(lane.under_way is not None for lane in self._lanes.values())
        waiting = sum(
            lane.under_way is None and bool(lane.activity()) for lane in self._lanes.values()
        )
        watched = f"watching {len(self._lanes)} handler{'' if len(self._lanes) == 1 else 's'}"
        self._worker.doing(
            f"{running} running, {waiting} waiting" if running or waiting else watched
        )
        self._write_view()
        self._look_again()

    def _write_view(self) -> None:
        rows = [
            row
            for key, lane in self._lanes.items()
            for row in lane.rows(operations_file.reported_states(self._said.get(key, ())))
        ]
        goal_state = (
            self._house.goal.summary.goal_state_id if self._house.goal.summary is not None else ""
        )
        try:
            operations_file.write_view(
                self._paths.operations_view, goal_state, time.monotonic(), rows
            )
        except OSError as error:
            self._worker.log.debug("view of operations is not written: %s", error)
