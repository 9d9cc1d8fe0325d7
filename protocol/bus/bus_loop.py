"""What the bus needs of the process it lives in; `workers/loop.py` has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import zmq


class Timer(Protocol):
    """Something that happens later."""

    def cancel(self) -> None:
        """It does not happen any more; nothing when it has happened."""


class Loop(Protocol):
    """One thread that waits for sockets and times."""

    def now(self) -> float:
        """CLOCK_MONOTONIC."""

    def on_readable(self, source: int | zmq.Socket[Any], call: Callable[[], None]) -> None:
        """``call`` whenever ``source`` has something to read; it must read until nothing is left,
        or soon be called again.
        """

    def forget(self, source: int | zmq.Socket[Any]) -> None:
        """Watch ``source`` no more; to be said before it is closed."""

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """``call`` once, in ``seconds``."""

    def wait(self, is_true: Callable[[], bool], deadline_s: float, reason: str) -> bool:
        """Run the loop until ``is_true()``; False when the deadline passed first."""
