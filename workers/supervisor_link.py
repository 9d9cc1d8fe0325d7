"""What a worker and the supervisor say to each other once the worker runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from waagent.protocol.base.log import Log
from waagent.workers.control import Configured, Control, adopt_log, configured, next_beat_at
from waagent.workers.loop import Loop, Timer

LEASE_LIMIT_S = 600.0
TEXT_LIMIT = 200
DOING_EVERY_S = 1.0


class SupervisorLink:
    """The worker's side of the control channel. Invariant: nothing in it waits for the supervisor.

    ``configuration`` and ``numbers`` are what the supervisor said last.
    """

    def __init__(
        self, control: Control, told: Configured, log: Log, loop: Loop, beat_s: float
    ) -> None:
        self.configuration: Mapping[str, Any] = told.configuration
        self.numbers = told.numbers
        self.is_ready = False
        self.doing_now = "starting"
        self._control, self._log, self._loop, self._beat_s = control, log, loop, beat_s
        self._said_at = -DOING_EVERY_S
        self._soon: Timer | None = None
        self._facts: dict[str, Any] = {}
        self._beat_at = next_beat_at(loop.now(), beat_s)
        self._on_configure: list[Callable[[], None]] = []
        self._on_log: list[Callable[[list[str]], None]] = []
        self._on_stack: list[Callable[[str, str], None]] = []
        loop.on_readable(control.fileno(), self._listen)
        loop.on_stop(self._say_what_waits)
        loop.after(self._beat_at - loop.now(), self._beat_and_go_on)

    # what it is told

    def ready(self) -> None:
        """This worker does its job from now on."""
        self.is_ready = True
        self._say("ready")

    def doing(self, what: str) -> None:
        """What waagent-ps shows; told at once, or a second after the last word."""
        what = what[:TEXT_LIMIT]
        if what == self.doing_now:
            return
        self.doing_now = what
        self._loop.turns += 1
        self._beat_soon()

    def tell(self, **facts: Any) -> None:
        """Facts (texts and numbers) that go with each heartbeat; None: not known any more.

        Times (names that end in ``_at``) wait for the next heartbeat, any other change is told like
        `doing`.
        """
        is_news = any(
            not name.endswith("_at") and self._facts.get(name) != value
            for name, value in facts.items()
        )
        self._facts.update(facts)
        if is_news:
            self._beat_soon()

    def busy(self, seconds: float, reason: str) -> None:
        """Take a lease: no verdict on this worker for ``seconds`` (≤ 600); 0 gives it back."""
        self._loop.turns += 1
        self._say(
            "busy",
            seconds=min(max(0.0, seconds), LEASE_LIMIT_S),
            reason=reason[:TEXT_LIMIT],
            progress=self._loop.turns,
        )

    def want(self, name: str, numbers: Sequence[int] = ()) -> None:
        """The worker ``name`` shall run, with these numbers (its roster row must allow it)."""
        self._say("want", name=name, numbers=list(numbers))

    def unwant(self, name: str) -> None:
        """The worker ``name`` is not needed any more."""
        self._say("unwant", name=name)

    def done(self, summary: str) -> None:
        """A one-shot's result; then `main` returns."""
        self._beat()  # its facts outlive it in the table
        self._say("done", summary=summary[:TEXT_LIMIT])

    def beat_when_due(self) -> None:
        """A heartbeat, when it is time for one; the loop does it by itself."""
        if self._loop.now() >= self._beat_at:
            self._beat_at = next_beat_at(self._loop.now(), self._beat_s)
            self._beat()

    # what is called when

    def on_configure(self, call: Callable[[], None]) -> None:
        """``call`` after ``configuration`` or ``numbers`` changed. Without one, a change ends the
        worker: a new one is started.
        """
        self._on_configure.append(call)

    def on_log(self, call: Callable[[list[str]], None]) -> None:
        """``call(lines)`` with log lines of the supervisor."""
        self._on_log.append(call)

    def on_stack(self, call: Callable[[str, str], None]) -> None:
        """``call(worker, text)`` with the stack of a worker that hung."""
        self._on_stack.append(call)

    def _say(self, kind: str, **fields: Any) -> None:
        self._control.say(kind, **fields)
        if self._control.has_waiting:
            self._loop.on_writable(self._control.fileno(), self._flush)

    def _flush(self) -> None:
        self._control.flush()
        if not self._control.has_waiting:
            self._loop.forget_writable(self._control.fileno())

    def _beat(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._said_at = self._loop.now()
        self._control.beat(self.doing_now, self._loop.turns, self._facts)

    def _beat_soon(self) -> None:
        if self._soon is not None:
            return
        wait_s = self._said_at + DOING_EVERY_S - self._loop.now()
        if wait_s <= 0:
            self._beat()
        else:
            self._soon = self._loop.after(wait_s, self._beat)

    def _beat_and_go_on(self) -> None:
        self.beat_when_due()
        self._loop.after(self._beat_at - self._loop.now(), self._beat_and_go_on)

    def _say_what_waits(self) -> None:
        if self._soon is not None:
            self._beat()  # our successor may want to know it

    def _listen(self) -> None:
        for message, descriptors in self._control.receive():
            adopt_log(descriptors)
            kind = message["type"]
            if kind == "configure":
                self._configure(configured(message))
            elif kind == "stop":
                self._loop.stop()
            elif kind == "log":
                lines = [str(line) for line in message.get("lines") or ()]
                for take_lines in self._on_log:
                    take_lines(lines)
            elif kind == "stack":
                for take_stack in self._on_stack:
                    take_stack(str(message.get("worker")), str(message.get("text")))

    def _configure(self, told: Configured) -> None:
        self._log.verbose = told.verbose
        if (told.configuration, told.numbers) == (self.configuration, self.numbers):
            return
        self.configuration, self.numbers = told.configuration, told.numbers
        if self._on_configure:
            for call in self._on_configure:
                call()
        elif self._loop.is_running:  # a one-shot goes on with what it began with
            self._log.info("configuration changed, ending so that a new worker applies it")
            self._loop.stop()
