"""One thing that the platform must hear: posted until it is accepted, with growing pauses, and only
the newest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import next_pause_s, spread_s
from waagent.protocol.wire import constants, headers
from waagent.workers.fabric_client.endpoint import Link
from waagent.workers.fabric_client.http_exchange import Outcome

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.runtime import Worker

# capped: the predecessor's arithmetic reaches hundreds of days
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)


class Delivery:
    """Health, or role properties. Invariant: at most one post is under way, and what was accepted
    is what was wanted then.
    """

    def __init__(
        self,
        worker: Worker,
        link: Link,
        name: str,
        target: str,
        *,
        body_of: Callable[[Any], bytes | None],
        accepted: Callable[[Any], None],
        stale: Callable[[], None],
    ) -> None:
        """``body_of`` gives None while the identifiers are not known; ``stale`` is called when they
        are out of date.
        """
        self._worker, self._link, self._faults, self._name, self._target = (
            worker,
            link,
            worker.faults,
            name,
            target,
        )
        self._body_of, self._accepted, self._stale = body_of, accepted, stale
        self.wanted: Any = None
        self._done: Any = None
        self._is_under_way = False
        self._tries = 0
        self._requests: list[Request] = []

    def want(self, value: Any, request: Request | None = None) -> None:
        """The platform is to know ``value``; ``request`` is answered once it does."""
        if value != self.wanted:
            self.wanted, self._tries = value, 0
        if request is not None:
            self._requests.append(request)
        self.look()

    def remember(self, value: Any) -> None:
        """A predecessor of this process had ``value`` accepted."""
        if self.wanted is None:
            self.wanted = self._done = value

    @property
    def is_accepted(self) -> bool:
        """Whether the platform knows what is wanted; also when nothing is."""
        return bool(self._done == self.wanted)

    def look(self) -> None:
        """Post, if there is something to post and nothing under way."""
        if self.wanted is not None and self._done == self.wanted:
            self._answer_all()
            return
        if self._is_under_way or self.wanted is None:
            return
        value = self.wanted
        body = self._body_of(value)
        if body is None:
            return
        self._is_under_way = True

        def posted(outcome: Outcome) -> None:
            self._posted(value, outcome)

        self._link.wire(
            "POST", self._target, headers.wire_post_headers(), self._name, posted, body=body
        )

    def _posted(self, value: Any, outcome: Outcome) -> None:
        answer = outcome.answer
        if answer is not None and answer.status in constants.OK_STATUSES:
            self._is_under_way = False
            self._done, self._tries = value, 0
            self._faults.ended(self._name, f"{self._name} accepted again")
            self._accepted(value)
            self.look()
            return
        self._tries += 1
        pause_s = spread_s(next_pause_s(self._tries, PAUSES_S))
        text = outcome.error if answer is None else f"status {answer.status}"
        self._faults.seen(
            self._name,
            f"{self._name} not accepted: {text}: none needed, tried again within"
            f" {PAUSES_S[-1]:g} s",
        )
        if answer is not None and answer.status == constants.GONE:
            self._stale()
        self._worker.loop.after(pause_s, self._pause_over)

    def _pause_over(self) -> None:
        self._is_under_way = False
        self.look()

    def _answer_all(self) -> None:
        requests, self._requests = self._requests, []
        for request in requests:
            request.answer({})
