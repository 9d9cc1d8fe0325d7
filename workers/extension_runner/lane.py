"""One lane per handler: its operations one after another, its neighbours' never waited for.

Each turn: take up the newest goal state, plan, carry out the first step, record it, turn again. A
lane that is killed anywhere in between does the same when it comes back, because the plan depends
on nothing but what is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from waagent.distro import files
from waagent.distro.operations.records import Observation
from waagent.protocol.bus.topics import HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.workers.extension_runner import (
    handler_report,
    lane_record,
    lane_start,
    plan,
    resetting,
    taken_over,
)
from waagent.workers.extension_runner.handler_journal import EVERYBODYS, Journal, Outcome
from waagent.workers.extension_runner.lane_context import HOUSE_S, LaneContext
from waagent.workers.extension_runner.lane_record import NotRun
from waagent.workers.extension_runner.package import Fetch
from waagent.workers.extension_runner.tracking import UnderWay

TROUBLE_PAUSE_S = 5.0
TROUBLE_PATIENCE_S = 60.0  # a full disk may pass; then the handler's status says what is wrong
CERTIFICATE_PAUSE_S = 1.0
REMOVE_S = 120.0  # of a large folder on a slow disk
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
        self._in_house = ""
        """What is done in the handler's folders now; empty: nothing."""
        self._is_looked_at = False
        """The folders were looked at for this goal."""
        self._is_vanishing = False

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
        self.is_adopted = self._is_vanishing = False
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

    def vanish(self) -> None:
        """The handler is no longer in the goal state: no command runs, its processes are ended and
        its folders go (row 15).
        """
        if not self._is_vanishing:
            self.leave()
            self._is_vanishing, self._is_looked_at = True, False
            if self._fetch is not None and self._fetch.cancel():
                self._fetch = None
            if self.under_way is not None:
                self._context.operations.stop([self.under_way.key.id])
            self.turn_soon()

    @property
    def has_vanished(self) -> bool:
        """Nothing is left of it, on the disk or running."""
        return (
            self._is_vanishing
            and self._is_looked_at
            and not (self.is_busy or self.journal.versions)
        )

    def park(self, why: plan.Refuse) -> None:
        """Do nothing more, and say why; an operation that runs goes on under its shim."""
        self.parked = why
        self.is_waiting_for_others = False
        if self._fetch is not None:
            self._fetch.cancel()

    def unpark(self) -> None:
        """Try again, from the next goal on."""
        self.parked = self.goal = self._next = self._fetch = None
        self._in_house = ""

    def resume(self) -> None:
        """What was to be done meanwhile was left out: look at everything."""
        self._is_turning = False
        self._later(0, self.observe)
        self.turn_soon()

    # what goes out

    @property
    def is_busy(self) -> bool:
        """Something of it is under way."""
        return self.under_way is not None or self._fetch is not None or bool(self._in_house)

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
        """Of the last operation for ``extension`` in this goal state and boot; what is done to the
        whole handler, or to its old version, is everybody's.
        """
        mine = [
            outcome
            for outcome in self.journal.outcomes.values()
            if self.goal is not None
            and outcome.goal_state_id == self.goal.goal_state_id
            and outcome.boot_id == self._context.boot_id
            and (
                outcome.extension == extension
                or outcome.operation in EVERYBODYS
                or outcome.version != self.journal_version
            )
        ]
        return mine[-1] if mine else None

    @property
    def journal_version(self) -> str:
        """The wanted version, as its folder spells it."""
        if self.goal is None:
            return ""
        return plan.installed_as(self.goal.version, self.journal.recorded().states)

    def is_anything_alive(self) -> bool:
        """Whether a process of the handler lives, in the background too."""
        return self._context.operations.is_anything_alive(self.journal.outcomes)

    def may_still_speak(self) -> bool:
        """A command runs, or what one left behind lives: it may write a status at any time."""
        return self.under_way is not None or self.is_anything_alive()

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
        self._note_state()
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
            if not self._is_looked_at and (self.goal is not None or self._is_vanishing):
                self._look()
            elif self._is_vanishing:
                self._remove_next()
            elif self.goal is not None:
                self._step(self.goal)
        except (OSError, files.FileError) as error:
            self._trouble(str(error))
        self._context.changed(self)

    def _take_goal(self) -> None:
        if self._next is not None:
            self.goal, self._next = self._next, None
            self._refused = self._fetch_failed = None
            self._waits_since = 0.0
            self._note = ""
            self.is_waiting_for_others = False
            self.goal_since = self.now()
            self._is_looked_at = False

    # in the handler's folders

    def _have_done(
        self,
        job: Mapping[str, Any],
        done: Callable[[Mapping[str, Any]], None],
        deadline_s: float = HOUSE_S,
    ) -> None:
        """Have a job of house_jobs done; ``done`` gets its answer, nothing else is done before."""
        self._in_house = str(job["kind"])

        def answered(answer: Any, reason: str) -> None:
            self._in_house = ""
            if answer is None:
                code, text = handler_errors.UNKNOWN, f"the handler's folder: {job['kind']} {reason}"
                answer = {"error": text, "code": code, "again": True}
            try:
                done(answer)
            except (OSError, files.FileError) as error:
                self._trouble(str(error))
            self._context.changed(self)

        self._context.in_house(
            self.journal.name,
            job,
            lambda answer, reason: self._context.attempt(self, lambda: answered(answer, reason)),
            deadline_s,
        )

    def _trouble(self, reason: str) -> None:
        self._note = f"cannot go on: {reason}"
        self._context.worker.log.warning(
            "handler waits handler=%s reason=%r", self.journal.name, reason[:200]
        )
        self._later(TROUBLE_PAUSE_S, self.turn_soon)

    def _look(self) -> None:
        def done(answer: Mapping[str, Any]) -> None:
            if "error" in answer:
                self._trouble(answer["error"])
                return
            self.journal.look(answer["versions"])
            if self.goal is not None:
                taken_over.settle(self._context, self.journal, self.goal)
            self._is_looked_at = True
            self.turn_soon()

        self._have_done({"kind": "look"}, done)

    def _note_state(self) -> None:
        """The predecessor's files follow the journal; what cannot be written is in ours."""

        def done(answer: Mapping[str, Any]) -> None:
            if "error" in answer:
                self._context.worker.log.warning(
                    "handler's state files cannot be written: %s: our journal has it",
                    answer["error"],
                )
            self.turn_soon()

        self._have_done({"kind": "note", "states": self.journal.in_files()}, done)

    def _remove(self, version: str, then: Callable[[], None]) -> None:
        def done(answer: Mapping[str, Any]) -> None:
            if "error" in answer:
                self._trouble(answer["error"])
                return
            self._context.worker.log.info(
                "handler's folder removed handler=%s version=%s", self.journal.name, version
            )
            then()
            self.turn_soon()

        self._have_done({"kind": "remove", "version": version}, done, REMOVE_S)

    def _remove_next(self) -> None:
        versions = sorted(self.journal.versions)
        if versions:
            self._context.operations.stop(self.journal.outcomes)
            self._remove(versions[0], lambda: self.journal.removed(versions[0]))

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
        elif isinstance(step, plan.Run):
            self._prepare(goal, step)
        else:
            self._carry_out(goal, step)

    def _carry_out(self, goal: HandlerGoal, step: plan.Forget | plan.Remove | plan.Replace) -> None:
        """A step without a command. What the old version left running ends with its folder."""
        journal, operations = self.journal, self._context.operations
        if isinstance(step, plan.Forget):
            job = {"kind": "forget", "version": step.version, "extension": step.extension}
            extension = step.extension

            def forgotten(answer: Mapping[str, Any]) -> None:
                journal.forget(extension)
                self._note_state()

            self._have_done(job, forgotten)
        elif isinstance(step, plan.Remove):
            operations.stop(journal.of_version(step.version))
            self._remove(step.version, lambda: journal.removed(step.version))
        else:
            operations.stop(journal.of_version(step.old))
            self._remove(step.old, lambda: journal.replaced(step, goal.goal_state_id))

    def _refuse(self, refusal: plan.Refuse) -> None:
        if refusal != self._refused:
            self._context.worker.log.warning(
                "handler not processed handler=%s code=%d reason=%r",
                self.journal.name,
                refusal.code,
                refusal.message,
            )
        self._refused = refusal

    def _prepare(self, goal: HandlerGoal, step: plan.Run) -> None:
        waited_s = self.now() - self._waits_since if self._waits_since else 0.0
        verdict = lane_start.may_start(self._context, goal, step, waited_s)
        self.is_waiting_for_others = False
        if isinstance(verdict, NotRun):
            self._not_run(step, verdict)
        elif verdict is None:
            job = {"kind": "prepare", **lane_start.preparation(self._context, goal, step)}
            self._have_done(job, lambda answer: self._start(step, answer))
        else:
            self._note = verdict.what
            self.is_waiting_for_others = verdict.for_others
            if not verdict.for_others:
                self._waits_since = self._waits_since or self.now()
                self._later(CERTIFICATE_PAUSE_S, self.turn_soon)

    def _start(self, step: plan.Run, prepared: Mapping[str, Any]) -> None:
        if prepared.get("again") and self.now() - self.goal_since < TROUBLE_PATIENCE_S:
            self._trouble(prepared["error"])
            return
        started = lane_start.start(self._context, self.journal, step, prepared)
        if isinstance(started, UnderWay):
            self.under_way, self._waits_since = started, 0.0
        else:
            self._not_run(step, started)

    def _not_run(self, step: plan.Run, why: NotRun) -> None:
        lane_record.record_not_run(self._context, self.journal, step.key, why)
        self._ended()

    # packages

    def _start_fetch(self, goal: HandlerGoal, step: plan.Fetch) -> None:
        context = self._context

        def done(code: int, text: str, answer: Mapping[str, Any]) -> None:
            self._fetched(goal, step.version, code, text, answer)

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
        self, goal: HandlerGoal, version: str, code: int, text: str, answer: Mapping[str, Any]
    ) -> None:
        self._fetch = None
        log = self._context.worker.log
        for warning in answer.get("warnings", ()):
            log.warning("package of %s %s: %s", self.journal.name, version, warning)
        if code == handler_errors.OK:
            mode = plan.UpdateMode(answer["installs_on_update"], answer["continues_on_failure"])
            self.journal.unpacked(version, goal.goal_state_id, mode)
            log.info("package unpacked handler=%s version=%s", self.journal.name, version)
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
