"""One thread that waits: for descriptors, ZeroMQ sockets, times, signals and the end of children.
Nothing wakes it needlessly.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Union

import zmq

Source = Union[int, "zmq.Socket[Any]"]
Call = Callable[[], None]
EXIT_UNKNOWN = 255


class Timer:
    """Something that happens later. Invariant: once cancelled it never happens."""

    def __init__(self, call: Call, every_s: float | None) -> None:
        self.call = call
        self.every_s = every_s
        self.is_cancelled = False

    def cancel(self) -> None:
        """It does not happen any more."""
        self.is_cancelled = True


class Loop:
    """The main loop of a worker.

    Invariant: everything that is called is called from here, one after the other; a source that
    always has something to read cannot keep timers from their turn.
    """

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._readers: dict[Source, Call] = {}
        self._writers: dict[int, Call] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._signals: dict[int, Call] = {}
        self._children: dict[int, Callable[[int], None]] = {}
        self._on_stop: list[Call] = []
        self.is_running = False
        """Inside of `run`."""
        self._must_stop = False
        self._wakeup, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # so that there is always a source: without one zmq does not wait
        self.on_readable(self._wakeup, self._read_signals)
        self.turns = 0
        """Calls made so far: what `progress` of a heartbeat grows with."""

    def now(self) -> float:
        """CLOCK_MONOTONIC."""
        return time.monotonic()

    # sources

    def on_readable(self, source: Source, call: Call) -> None:
        """``call`` whenever ``source`` (a descriptor or a ZeroMQ socket) has something to read or
        is at its end.
        """
        self._readers[source] = call
        self._register(source)

    def on_writable(self, descriptor: int, call: Call) -> None:
        """``call`` whenever ``descriptor`` can be written to; until `forget_writable`."""
        self._writers[descriptor] = call
        self._register(descriptor)

    def forget_writable(self, descriptor: int) -> None:
        """Nothing is to be written any more."""
        self._writers.pop(descriptor, None)
        self._register(descriptor)

    def forget(self, source: Source) -> None:
        """Watch ``source`` no more; to be said before it is closed."""
        self._readers.pop(source, None)
        if isinstance(source, int):
            self._writers.pop(source, None)
        self._register(source)

    def _register(self, source: Source) -> None:
        wanted = (zmq.POLLIN if source in self._readers else 0) | (
            zmq.POLLOUT if source in self._writers else 0
        )
        if wanted:
            self._poller.register(source, wanted)
        elif source in self._poller:
            self._poller.unregister(source)

    # times

    def after(self, seconds: float, call: Call) -> Timer:
        """``call`` once, in ``seconds``."""
        return self._at(self.now() + seconds, Timer(call, None))

    def every(self, seconds: float, call: Call) -> Timer:
        """``call`` every ``seconds``, the first time in ``seconds``; turns that were missed are not
        made up for.
        """
        return self._at(self.now() + seconds, Timer(call, seconds))

    def _at(self, when: float, timer: Timer) -> Timer:
        self._timers.append((when, next(self._order), timer))
        # a few, nearly sorted; the order number decides before a timer is compared
        self._timers.sort()
        return timer

    def _wait_ms(self, limit_s: float | None) -> int | None:
        while self._timers and self._timers[0][2].is_cancelled:
            self._timers.pop(0)
        waits = [when - self.now() for when, _, _ in self._timers[:1]] + (
            [limit_s] if limit_s is not None else []
        )
        return max(0, math.ceil(min(waits) * 1000)) if waits else None

    def _run_timers(self) -> None:
        now, first_new = self.now(), next(self._order)
        while self._timers and self._timers[0][0] <= now and self._timers[0][1] < first_new:
            # one by one: what is called may wait, and run the others meanwhile
            timer = self._timers.pop(0)[2]
            if not timer.is_cancelled:
                if timer.every_s is not None:
                    self._at(now + timer.every_s, timer)
                timer.call()

    # signals

    def on_signal(self, number: int, call: Call) -> None:
        """``call`` from the loop after signal ``number``; only in the main thread."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        self._signals[number] = call
        signal.signal(number, _noted)

    def _read_signals(self) -> None:
        try:
            numbers = os.read(self._wakeup, 4096)
        except BlockingIOError:
            return
        for number in sorted(set(numbers)):
            if number in self._signals:
                self._signals[number]()

    # children

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        """``call(status)`` when our child ``pid`` ended; status as of `os.waitstatus_to_exitcode`,
        255 if somebody else reaped it.
        """
        if signal.SIGCHLD not in self._signals:
            self.on_signal(signal.SIGCHLD, self._reap)
        self._children[pid] = call
        self.after(0, self._reap)

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # a Popen that was thrown away reaps behind our back
                ended, status = pid, EXIT_UNKNOWN << 8
            if ended == pid:
                self._children.pop(pid)(os.waitstatus_to_exitcode(status))

    # the end

    def on_stop(self, call: Call) -> None:
        """``call`` when the loop is told to stop; then `run` returns."""
        self._on_stop.append(call)

    def stop(self) -> None:
        """End: what `on_stop` names is called, `run` returns, `wait` raises SystemExit(0)."""
        if not self._must_stop:
            self._must_stop = True
            for call in self._on_stop:
                call()

    # waiting

    def run(self) -> None:
        """Work until told to stop."""
        self.is_running = True
        while not self._must_stop:
            self.turn()

    def wait(self, is_true: Callable[[], bool], deadline_s: float) -> bool:
        """Go on until ``is_true()``; False when the deadline passed first."""
        ends_at = self.now() + deadline_s
        wake = self.after(deadline_s, _nothing)
        try:
            while not is_true():
                if self._must_stop:
                    raise SystemExit(0)
                if self.now() >= ends_at:
                    return False
                self.turn()
        finally:
            wake.cancel()
        return True

    def turn(self, limit_s: float | None = None) -> None:
        """Wait for the next thing, at most ``limit_s``, and do what is due."""
        for source, events in self._poller.poll(self._wait_ms(limit_s)):
            if events & zmq.POLLOUT and source in self._writers:
                self.turns += 1
                self._writers[source]()
            if events & ~zmq.POLLOUT and source in self._readers:
                self.turns += 1
                self._readers[source]()
            elif events & zmq.POLLERR and source in self._writers:
                self.turns += 1
                self._writers[source]()
        self._run_timers()


def _noted(number: int, frame: object) -> None:
    """The wake-up descriptor tells the loop; a handler must be there for that."""


def _nothing() -> None:
    """Wakes the loop."""
