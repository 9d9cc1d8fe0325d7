"""Follows the goal state: subscribes to its summary, asks for each handler, hands what came to the
lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.bus import parts, topics
from waagent.protocol.bus.parts import Part
from waagent.protocol.bus.topics import GoalStateSummary, HandlerGoal

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

ASK_S = 10.0
AGAIN_S = 3.0


class Goals:
    """The newest goal state. Invariant: an answer that belongs to an older one is dropped."""

    def __init__(
        self,
        worker: Worker,
        client: Any,
        accepted: Callable[[HandlerGoal], None],
        summarised: Callable[[GoalStateSummary], None],
    ) -> None:
        """``accepted`` gets each handler's desired state, ``summarised`` the summary before
        them.
        """
        self._worker, self._client = worker, client
        self._accepted, self._summarised = accepted, summarised
        self._summary: GoalStateSummary | None = None

    def follow(self) -> None:
        """From now on."""
        self._client.subscribe(topics.GOAL_STATE, self._changed)

    def _changed(self, body: Mapping[str, Any], revision: int) -> None:
        try:
            summary = topics.from_body(GoalStateSummary, body)
        except topics.BodyError as error:
            self._worker.log.warning(
                "goal state is not understood: fabric_client revision %d: %s: none needed",
                revision,
                error,
            )
            return
        if summary == self._summary:
            return
        self._summary = summary
        self._worker.log.info(
            "goal state taken up id=%s handlers=%d", summary.goal_state_id, len(summary.handlers)
        )
        self._summarised(summary)
        if summary.unsupported_features:
            self._worker.log.warning(
                "nothing is executed: required features are not supported: %r",
                summary.unsupported_features,
            )
            return
        if summary.extensions_complete:
            for name in summary.handlers:
                self._ask(summary, name)

    def _ask(self, summary: GoalStateSummary, name: str, before: tuple[Part, ...] = ()) -> None:
        """Ask for a handler's goal; ``before`` are the parts of it that have come already."""

        def done(body: Mapping[str, Any] | None, problem: str) -> None:
            if summary is not self._summary:
                return
            if body is None or "digest" not in body:
                self._answered(summary, name, body, problem)
                return
            try:
                come = (*before, topics.from_part(body))
                if len(come) < min(come[-1].total, parts.PARTS_LIMIT):
                    self._ask(summary, name, come)
                else:
                    self._answered(summary, name, parts.joined(come), "")
            except ValueError as error:
                self._answered(summary, name, None, str(error))

        if summary is self._summary:
            asked = {"name": name, "part": len(before)}
            self._client.ask(topics.HANDLER, asked, deadline_s=ASK_S, done=done)

    def _answered(
        self, summary: GoalStateSummary, name: str, body: Mapping[str, Any] | None, problem: str
    ) -> None:
        if body is None:
            self._worker.log.debug(
                "handler's goal is asked for again handler=%s reason=%r", name, problem
            )
            self._worker.loop.after(AGAIN_S, lambda: self._ask(summary, name))
            return
        try:
            goal = topics.from_body(HandlerGoal, body)
        except topics.BodyError as error:
            goal = HandlerGoal(
                name,
                "0",
                "enabled",
                summary.goal_state_id,
                error=f"the goal of {name} is not understood: {error}",
            )
        self._accepted(goal)
