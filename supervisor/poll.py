"""The loop's two ends: what can be read, of many sources (poll(2), the one such call that all our
systems have), and by how much a turn is late.
"""

from __future__ import annotations

import select
from typing import Any

LAG_S = 2.0
"""A turn later than this means that we did not run: live migration, SIGSTOP, a swap storm."""


class Watch:
    """Sources that have a ``fileno``. Invariant: whoever is closed was removed before."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sources: dict[int, Any] = {}

    def add(self, source: Any) -> None:
        """Have ``source`` in what `wait` returns while it can be read, or has ended."""
        self._sources[source.fileno()] = source
        self._poll.register(source, select.POLLIN)

    def remove(self, source: Any) -> None:
        """Forget ``source``."""
        del self._sources[source.fileno()]
        self._poll.unregister(source)

    def wait(self, pause_s: float | None) -> list[Any]:
        """The sources that can be read, after at most ``pause_s``; None: until one can."""
        ready = self._poll.poll(None if pause_s is None else int(pause_s * 1000 + 0.999))
        return [self._sources[descriptor] for descriptor, _ in ready]


class Turns:
    """The turns of a loop that waits for its next deadline; says by how much the one that just
    began is late.
    """

    def __init__(self, now: float) -> None:
        self.began = now
        self._planned, self._unheard_s = now, 0.0

    def pause_s(self, due: float, now: float) -> float | None:
        """How long to wait for ``due``; None: until something happens. A turn that took long by
        itself heard nobody either.
        """
        self._unheard_s = now - self.began
        self._planned = max(due, now)
        return None if due == float("inf") else max(0.0, due - now)

    def lag_s(self, now: float) -> float:
        """Begin a turn: how much later than planned."""
        self.began = now
        return max(0.0, now - self._planned) + (self._unheard_s if self._unheard_s > LAG_S else 0.0)
