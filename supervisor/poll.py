"""What can be read, of many sources: poll(2), the one such call that all our systems have
(`selectors` is 0.1 MiB).
"""

from __future__ import annotations

import select
from typing import Any


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
