"""How often something may be asked again: what others answer must not set our pace. Pure."""

from __future__ import annotations

from collections.abc import Sequence

QUIET_S = 120.0
PAUSES_S = (0.5, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0)


class Brake:
    """One for each thing that is asked again at somebody's word (410, "stale", no RoleInstance).

    Invariant: two permitted times are at least the pause apart that stands in ``pauses_s`` for as
    many as there were without QUIET_S in between; a pause is never negative.
    """

    def __init__(self, pauses_s: Sequence[float] = PAUSES_S, quiet_s: float = QUIET_S) -> None:
        self._pauses_s, self._quiet_s = tuple(pauses_s), quiet_s
        self._times = 0
        self._last_at = -quiet_s

    def pause_s(self, now: float) -> float:
        """How long to wait from ``now`` on; the caller does, and then asks."""
        if now - self._last_at >= self._quiet_s:
            self._times = 0
        pause_s = self._pauses_s[min(self._times, len(self._pauses_s) - 1)]
        self._times += 1
        self._last_at = max(now, self._last_at) + pause_s
        return self._last_at - now
