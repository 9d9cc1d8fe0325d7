"""One lane per handler: its operations one after another, its neighbours' never waited for.

Each turn: take up the newest goal state, plan, carry out the first step, record it, turn again. A
lane that is killed anywhere in between does the same when it comes back, because the plan depends
on nothing but what is recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from waagent.distro import files
from waagent.distro.operations.records import Observation
from waagent.protocol.bus.topics import HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.workers.extension_runner import (
    handler_files,
    handler_report,
    lane_record,
    lane_start,
    plan,
    resetting,
)
from waagent.workers.extension_runner.handler_journal import Journal, Outcome
from waagent.workers.extension_runner.lane_context import LaneContext
from waagent.workers.extension_runner.lane_record import NotRun
from waagent.workers.extension_runner.package import Fetch
from waagent.workers.extension_runner.tracking import UnderWay

TROUBLE_PAUSE_S = 5.0
CERTIFICATE_PAUSE_S = 1.0
LAUNCH_TRIES = 3
LAUNCH_PAUSE_S = 20.0  # between two tries; a full disk or a lack of processes may pass


class Lane:
    """One handler, whose names were looked at. Invariant: at most one operation or fetch of it is
    under way, and nothing is planned meanwhile.

    A parked lane does nothing; its owner unparks it with the next goal state.
    """

    def __init__(self, context: LaneContext, name: str) -> None:
        self._context = context
        self.name = name
        """As the goal state spells it; the journal may know an earlier spelling."""
        self.paths = context.paths
        self.now, self.wall_ns = context.now, context.wall_ns
        self.journal = self._empty_journal()
        self.goal: HandlerGoal | None = None
        self.under_way: UnderWay | None = None
        self.is_adopted = False
        """What is under way was begun by an earlier runner, and nobody has told a goal yet."""
        self.parked: plan.Refuse | None = None
        """Why nothing is done here, whatever is wanted."""
        self.is_waiting_for_others = False
        self.goal_since = 0.0
        """CLOCK_MONOTONIC since when this goal is followed."""
        self._note = ""
        self._next: HandlerGoal | None = None
        self._fetch: Fetch | None = None
        self._refused: plan.Refuse | None = None
        self._fetch_failed: plan.Refuse | None = None
        self._waits_since = 0.0
        self._is_turning = False

    @property
    def key(self) -> str:
        """The handler's name in lower case: names that differ in nothing else are the same."""
        return self.name.lower()

    def _empty_journal(self) -> Journal:
        return Journal(self.paths.operations / "handlers" / f"{self.key}.json", self.name)

    def read_journal(self) -> None:
        """Take up what is recorded. Raises OSError, and whatever a journal of nonsense brings."""
        self.journal = self._empty_journal()
        self.journal.read()
        resetting.carry_out(self.paths.operations, self.journal, self._context.worker.log)

    # what comes in

    def accept(self, goal: HandlerGoal) -> None:
        """Desired state; while an operation runs only the newest is remembered (spec: extensions
        §3.8).
        """
        if self.parked is not None:
            self.goal = goal  # it is reported, no more
            return
        self.is_adopted = False
        self._next = None if goal == self.goal else goal
        if self._next is not None and self._fetch is not None and self._fetch.cancel():
            self._fetch = None
        self.turn_soon()

    def adopt(self, under_way: UnderWay) -> None:
        """An operation that an earlier runner began."""
        if under_way.key.id in self.journal.outcomes:
            self._context.operations.settle(under_way.key.id)
            return
        self.under_way, self.is_adopted = under_way, self.goal is None
        self._context.worker.log.info(
            "operation adopted handler=%s operation=%s id=%s",
            self.journal.name,
            under_way.key.operation,
            under_way.key.id,
        )

    def leave(self) -> None:
        """Nothing is wanted of this handler; what runs ends by itself."""
        self.goal = self._next = None
        self.is_adopted = False

    def park(self, why: plan.Refuse) -> None:
        """Do nothing more, and say why; an operation that runs goes on under its shim."""
        self.parked = why
        self.is_waiting_for_others = False
        if self._fetch is not None:
            self._fetch.cancel()

    def unpark(self) -> None:
        """Try again, from the next goal on."""
        self.parked = self.goal = self._next = self._fetch = None

    def resume(self) -> None:
        """What was to be done meanwhile was left out: look at everything."""
        self._is_turning = False
        self._later(0, self.observe)
        self.turn_soon()

    # what goes out

    @property
    def is_busy(self) -> bool:
        """Something of it is under way."""
        return self.under_way is not None or self._fetch is not None

    @property
    def newest(self) -> HandlerGoal | None:
        """The goal that is followed next, when it is not followed yet."""
        return self._next or self.goal

    @property
    def refusal(self) -> plan.Refuse | None:
        """Why nothing is run in this goal state; None: something is, or was."""
        return self._refused or self._fetch_failed

    def activity(self) -> str:
        """What is done or waited for, in words; empty: nothing."""
        if self.under_way is not None:
            elapsed = self.now() - self.under_way.started_at
            return f"{self.under_way.key.operation} running, {handler_report.duration(elapsed)}"
        return self._fetch.note if self._fetch is not None else self._note

    def outcome(self, extension: str) -> Outcome | None:
        """Of the last operation for ``extension`` in this goal state and boot; an INSTALL is
        everybody's.
        """
        mine = [
            outcome
            for outcome in self.journal.outcomes.values()
            if self.goal is not None
            and outcome.goal_state_id == self.goal.goal_state_id
            and outcome.boot_id == self._context.boot_id
            and (outcome.extension == extension or outcome.operation == plan.INSTALL)
        ]
        return mine[-1] if mine else None

    def is_anything_alive(self) -> bool:
        """Whether a process of the handler lives, in the background too."""
        return self._context.operations.is_anything_alive(self.journal.outcomes)

    def look_at_operation(self, under_way: UnderWay) -> Observation:
        """Process and cgroup of what is under way."""
        return self._context.operations.look_at(under_way)

    # an operation under way

    def poll(self) -> None:
        """`observe`, when there may be something to see; cheap enough for every tick."""
        if self.under_way is not None and self._context.operations.may_have_ended(self.under_way):
            self.observe()

    def observe(self) -> None:
        """Look whether the operation under way has ended; start its shim again when that never came
        to life.
        """
        under_way = self.under_way
        if under_way is None:
            return
        seen = self._context.operations.end_of(under_way)
        if seen is not None:
            lane_record.record_end(self._context, self.journal, under_way, seen)
            self._ended()
        elif not self._context.operations.is_announced(under_way):
            self._launch_again(under_way)

    def _launch_again(self, under_way: UnderWay) -> None:
        is_early = self.now() - under_way.launched_at < LAUNCH_PAUSE_S
        if is_early or not self._context.operations.is_not_begun(under_way):
            return
        if under_way.launches < LAUNCH_TRIES:
            self._context.worker.log.warning(
                "shim did not start, started again id=%s", under_way.key.id
            )
            self.under_way = self._context.operations.start(under_way)
        else:
            lane_record.record_not_started(self._context, self.journal, under_way)
            self._ended()

    def _ended(self) -> None:
        self.under_way = None
        self.turn_soon()
        self._context.changed(self)

    # turning

    def turn_soon(self) -> None:
        """Turn in the next round of the loop; once, however often it is asked for."""
        if not self._is_turning:
            self._is_turning = True
            self._later(0, self._turn)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._context.worker.loop.after(seconds, lambda: self._context.attempt(self, call))

    def _turn(self) -> None:
        self._is_turning = False
        if self.is_busy:
            return
        try:
            self.journal.save()
            self._take_goal()
            if self.goal is not None:
                self._step(self.goal)
        except (OSError, files.FileError) as error:
            self._note = f"cannot go on: {error}"
            self._context.worker.log.warning(
                "handler waits handler=%s reason=%r", self.journal.name, str(error)[:200]
            )
            self._later(TROUBLE_PAUSE_S, self.turn_soon)
        self._context.changed(self)

    def _take_goal(self) -> None:
        if self._next is not None:
            self.goal, self._next = self._next, None
            self._refused = self._fetch_failed = None
            self._waits_since = 0.0
            self._note = ""
            self.is_waiting_for_others = False
            self.goal_since = self.now()
            self.journal.look(self.paths.library, self._context.worker.log)

    def _step(self, goal: HandlerGoal) -> None:
        self._note = ""
        if self._fetch_failed is not None:
            return
        if not self._context.goal.is_enabled:
            self._refuse(plan.refuse_disabled(goal, str(self.paths.configuration)))
            return
        steps = plan.plan(
            goal, self.journal.recorded(), self._context.boot_id, spelling=self.journal.name
        )
        if not steps:
            return
        step = steps[0]
        if isinstance(step, plan.Refuse):
            self._refuse(step)
        elif isinstance(step, plan.Fetch):
            self._start_fetch(goal, step)
        elif isinstance(step, plan.Forget):
            self._forget(step)
        else:
            self._start(goal, step)

    def _refuse(self, refusal: plan.Refuse) -> None:
        if refusal != self._refused:
            self._context.worker.log.warning(
                "handler not processed handler=%s code=%d reason=%r",
                self.journal.name,
                refusal.code,
                refusal.message,
            )
        self._refused = refusal

    def _forget(self, step: plan.Forget) -> None:
        folders = handler_files.Folders(self.paths, self.journal.name, step.version)
        handler_files.forget_extension(folders, step.extension)
        self.journal.forget(step.extension)
        handler_files.write_state(self.paths, self.journal, self._context.worker.log)
        self.turn_soon()

    def _start(self, goal: HandlerGoal, step: plan.Run) -> None:
        waited_s = self.now() - self._waits_since if self._waits_since else 0.0
        started = lane_start.start(self._context, self.journal, goal, step, waited_s)
        self.is_waiting_for_others = False
        if isinstance(started, UnderWay):
            self.under_way, self._waits_since = started, 0.0
        elif isinstance(started, NotRun):
            lane_record.record_not_run(self._context, self.journal, step.key, started)
            self._ended()
        else:
            self._note = started.what
            self.is_waiting_for_others = started.for_others
            if not started.for_others:
                self._waits_since = self._waits_since or self.now()
                self._later(CERTIFICATE_PAUSE_S, self.turn_soon)

    # packages

    def _start_fetch(self, goal: HandlerGoal, step: plan.Fetch) -> None:
        context = self._context

        def done(code: int, text: str, warnings: tuple[str, ...]) -> None:
            self._fetched(goal, step.version, code, text, warnings)

        self._fetch = Fetch(
            context.worker,
            context.client,
            context.file_processes,
            self.paths,
            self.journal.name,
            step.version,
            done,
            guarded=lambda call: context.attempt(self, call),
        )
        self._fetch.start(self.now)

    def _fetched(
        self, goal: HandlerGoal, version: str, code: int, text: str, warnings: tuple[str, ...]
    ) -> None:
        self._fetch = None
        log = self._context.worker.log
        for warning in warnings:
            log.warning("package of %s %s: %s", self.journal.name, version, warning)
        if code == handler_errors.OK:
            try:
                folders = handler_files.Folders(self.paths, self.journal.name, version)
                handler_files.initialise(folders, self.journal.name)
                self.journal.unpacked(version, goal.goal_state_id)
                log.info("package unpacked handler=%s version=%s", self.journal.name, version)
            except (OSError, files.FileError) as error:
                code = handler_errors.PACKAGE_INVALID
                text = f"Failed to initialise the handler's folder: {error}"
        if code != handler_errors.OK:
            self._fetch_failed = plan.Refuse(code, text)
            log.error(
                "package refused handler=%s version=%s code=%d reason=%r",
                self.journal.name,
                version,
                code,
                text[:300],
            )
        self.turn_soon()
        self._context.changed(self)
