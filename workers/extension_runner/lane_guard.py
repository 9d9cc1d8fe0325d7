"""One bad lane ends nobody: what it raises parks it, and what ended a runner is looked at last, or
not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from waagent.protocol.bus.topics import HandlerGoal
from waagent.workers.extension_runner import parking, plan
from waagent.workers.extension_runner.lane import Lane
from waagent.workers.extension_runner.looking import LIMIT, Looking

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

HELD_S = 10.0  # the others go first, after a runner ended while it looked at this lane

T = TypeVar("T")


class LaneGuard:
    """Stands before every call into a lane. Invariant: a lane that is parked or held is not
    called, but for what needs nothing of its records (`accept`, `park`).
    """

    def __init__(self, worker: Worker, looking: Looking, changed: Callable[[], None]) -> None:
        """``changed`` is called when a lane was parked, or is looked at again."""
        self._worker, self.looking, self._changed = worker, looking, changed
        self._held: set[str] = set()
        self._postponed: dict[str, list[Callable[[], None]]] = {}
        """Lane -> what it is to do first, once it is looked at."""

    def is_closed(self, lane: Lane) -> bool:
        """Nobody calls it now."""
        return lane.parked is not None or lane.key in self._held

    def attempt(self, lane: Lane, call: Callable[[], T], otherwise: T) -> T:
        """What ``call`` gives; ``otherwise`` when the lane is parked or held, or parks now because
        of what it raised.
        """
        if self.is_closed(lane):
            return otherwise
        before = self.looking.begin(lane.key)
        try:
            return call()
        # one handler must not end all others, whatever is wrong with it
        except Exception as error:
            self._worker.log.exception("unforeseen error at handler=%s", lane.name)
            self._park(lane, parking.raised(error))
            return otherwise
        finally:
            self.looking.end(before)

    def do(self, lane: Lane, call: Callable[[], None]) -> None:
        """`attempt` for what gives nothing."""
        self.attempt(lane, call, None)

    def do_first(self, lane: Lane, call: Callable[[], None]) -> None:
        """Have the lane do this now, or before anything else once it is looked at again."""
        if self.is_closed(lane):
            self._postponed.setdefault(lane.key, []).append(call)
        else:
            self.do(lane, call)

    def enter(self, lane: Lane) -> None:
        """A new lane: hold it, or park it, when earlier runners ended while they looked at it."""
        deaths = self.looking.deaths(lane.key)
        if deaths >= LIMIT:
            self._park(lane, parking.deadly(deaths))
        elif deaths:
            self._held.add(lane.key)
            self._worker.loop.after(HELD_S, lambda: self._release(lane))

    def tell_goal_state(self, lane: Lane, goal: HandlerGoal) -> None:
        """A parked lane is tried again with the next goal state; ``goal`` may be of that one."""
        if lane.parked is None:
            return
        parked_in = lane.goal.goal_state_id if lane.goal is not None else ""
        parked_in = parked_in or self.looking.goal_state_of(lane.key)
        if parked_in and parked_in != goal.goal_state_id:
            self.looking.forgive(lane.key)
            lane.unpark()
            self._postponed.setdefault(lane.key, []).insert(0, lane.read_journal)
            self._catch_up(lane)
        elif self.looking.deaths(lane.key) >= LIMIT:
            self.looking.note_goal_state(lane.key, goal.goal_state_id)

    def _park(self, lane: Lane, why: plan.Refuse) -> None:
        lane.park(why)
        self._worker.log.error(
            "handler is parked handler=%s reason=%r", lane.name, why.message[:300]
        )
        self._changed()

    def _release(self, lane: Lane) -> None:
        self._held.discard(lane.key)
        self._catch_up(lane)
        # this runner lives on: what ended the other one was something else
        self._worker.loop.after(HELD_S, lambda: self.looking.forgive(lane.key))

    def _catch_up(self, lane: Lane) -> None:
        for call in self._postponed.pop(lane.key, ()):
            self.do(lane, call)
        self.do(lane, lane.resume)
        self._changed()
