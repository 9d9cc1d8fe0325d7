"""A deadline that a sleeping machine does not eat."""

from __future__ import annotations

# a turn later than this means that we did not run: live migration, SIGSTOP, a swap storm
LAG_S = 2.0


class Deadline:
    """A point on CLOCK_MONOTONIC. Invariant: it moves only later, by the whole lag of a turn that
    began over LAG_S late.
    """

    def __init__(self, after_s: float, now: float) -> None:
        self.at = now + after_s
        self._planned = now

    def pause_s(self, now: float, at_most_s: float) -> float:
        """How long to wait before the next turn; remembers when that turn should begin."""
        pause = max(0.0, min(at_most_s, self.at - now))
        self._planned = now + pause
        return pause

    def has_passed(self, now: float) -> bool:
        """Begin a turn: move the deadline when the turn is late, then say whether it lies
        behind.
        """
        lag = now - self._planned
        if lag > LAG_S:
            self.at += lag
        self._planned = now
        return now >= self.at
