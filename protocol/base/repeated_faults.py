"""A fault that repeats is logged at once, after a minute, then hourly with a count, and once when
it ends.
"""

from __future__ import annotations

from collections.abc import Callable

from waagent.protocol.base.log import Log
from waagent.protocol.base.records import Record

FIRST_REPEAT_S = 60.0
REPEAT_S = 3600.0
KINDS_LIMIT = 256  # keys may come from outside


class Fault(Record):
    """What is known of one fault."""

    began_at: float
    times: int
    """How often it was seen."""
    next_line_at: float


def seen_again(fault: Fault | None, now: float) -> tuple[Fault, bool]:
    """The fault after one more occurrence, and whether that deserves a line."""
    if fault is None:
        return Fault(now, 1, now + FIRST_REPEAT_S), True
    if now < fault.next_line_at:
        return fault._replace(times=fault.times + 1), False
    return fault._replace(times=fault.times + 1, next_line_at=now + REPEAT_S), True


class Faults:
    """The repeated faults of one process. Invariant: at most KINDS_LIMIT kinds are remembered, the
    oldest go first.
    """

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log = log
        self._clock = clock
        self._known: dict[str, Fault] = {}

    def seen(self, kind: str, text: str) -> None:
        """The fault ``kind`` has occurred (again); ``text`` says what, where and the remedy."""
        fault, deserves_line = seen_again(self._known.pop(kind, None), self._clock())
        self._known[kind] = fault
        if len(self._known) > KINDS_LIMIT:
            del self._known[next(iter(self._known))]
        if not deserves_line:
            return
        if fault.times == 1:
            self._log.warning("%s", text)
        else:
            self._log.warning(
                "%s times=%d since_s=%.0f", text, fault.times, self._clock() - fault.began_at
            )

    def ended(self, kind: str, text: str) -> None:
        """The fault ``kind`` is over; nothing happens when it was not there."""
        fault = self._known.pop(kind, None)
        if fault is not None:
            self._log.info(
                "%s after_s=%.0f times=%d", text, self._clock() - fault.began_at, fault.times
            )
