"""The common floor of all workers: `run` brings one to life, `Worker` is what its `main` is given.

One thread, one loop. Between the supervisor and the loop stands the control socket, between the
workers the bus. Exit status: 0 told to stop or done, 70 an unforeseen error (its traceback is in
the log), what SystemExit says otherwise. When the supervisor dies the worker ends at once: a new
supervisor starts a new one, and no state is lost, since it has none.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import zmq

from waagent.distro.paths import Paths
from waagent.protocol.base.log import PROCESS, Log
from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus import sockets
from waagent.protocol.bus.client import Client
from waagent.protocol.bus.server import Server
from waagent.protocol.worker_start import WorkerStart
from waagent.workers.control import (
    Configured,
    Control,
    SupervisorGone,
    adopt_log,
    configured,
    next_beat_at,
)
from waagent.workers.loop import Loop, Timer

EXIT_UNFORESEEN = 70
EXIT_ORPHANED = 75
EXIT_UNKNOWN = 255
LEASE_LIMIT_S = 600.0
LEASE_SLACK_S = 5.0
DOING_LIMIT = 200
DOING_EVERY_S = 1.0


class Worker:
    """A worker's view of the world. Invariant: nothing in it waits for the supervisor or for
    another worker.

    ``configuration`` and ``numbers`` are what the supervisor said last; ``client`` and ``serve``
    open the bus, ``log`` and ``faults`` write the log (``faults`` what repeats), ``on_…`` and
    ``after`` say what is called when.
    """

    def __init__(
        self, start: WorkerStart, control: Control, told: Configured, log: Log, loop: Loop
    ) -> None:
        self.name = start.name
        self.build = start.build
        self.place = start.place
        self.outside = start.outside
        self._tools = start.tools
        self.paths = Paths(start.root)
        self.configuration: Mapping[str, Any] = told.configuration
        self.numbers = told.numbers
        self.log = log
        self.faults = Faults(log, loop.now)
        self._start = start
        self._control = control
        self._loop = loop
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._server: Server | None = None
        self._doing = "starting"
        self._said_at = -DOING_EVERY_S
        self._soon: Timer | None = None
        self._facts: dict[str, Any] = {}
        self._is_ready = False
        self._is_looping = False
        self._must_stop = False
        self._beat_at = next_beat_at(loop.now(), start.beat_s)
        self._on_configure: list[Callable[[], None]] = []
        self._on_stop: list[Callable[[], None]] = []
        self._on_log: list[Callable[[list[str]], None]] = []
        self._on_stack: list[Callable[[str, str], None]] = []
        self._children: dict[int, Callable[[int], None]] = {}
        loop.on_readable(control.fileno(), self._listen)
        loop.on_signal(signal.SIGTERM, self.stop)
        loop.on_signal(signal.SIGCHLD, self._reap)
        self._loop.after(self._beat_at - loop.now(), self._beat_and_go_on)

    @property
    def state(self) -> int:
        """The supervisor's state file, opened for reading before the fence
        (`statefile.read_state`).
        """
        return self._start.state

    # what the supervisor is told

    def ready(self) -> None:
        """This worker does its job from now on."""
        self._is_ready = True
        self._say("ready")

    def doing(self, what: str) -> None:
        """What waagent-ps shows; told at once, or a second after the last word."""
        what = what[:DOING_LIMIT]
        if what == self._doing:
            return
        self._doing = what
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
            reason=reason[:DOING_LIMIT],
            progress=self._progress,
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
        self._say("done", summary=summary[:DOING_LIMIT])

    # what is called when

    def now(self) -> float:
        """CLOCK_MONOTONIC."""
        return self._loop.now()

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """``call`` once, in ``seconds``; the timer has `cancel`."""
        return self._loop.after(seconds, call)

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        """``call`` every ``seconds``, the first time in ``seconds``."""
        return self._loop.every(seconds, call)

    def on_readable(self, descriptor: int, call: Callable[[], None]) -> None:
        """``call`` whenever ``descriptor`` has something to read, or is at its end."""
        self._loop.on_readable(descriptor, call)

    def on_writable(self, descriptor: int, call: Callable[[], None]) -> None:
        """``call`` whenever ``descriptor`` can be written to, until `forget_writable` or
        `forget`.
        """
        self._loop.on_writable(descriptor, call)

    def forget_writable(self, descriptor: int) -> None:
        """Nothing is to be written any more."""
        self._loop.forget_writable(descriptor)

    def forget(self, descriptor: int) -> None:
        """Watch ``descriptor`` no more; to be said before it is closed."""
        self._loop.forget(descriptor)

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        """``call(status)`` when our child ``pid`` ended; status as of `os.waitstatus_to_exitcode`,
        255 if somebody else reaped it.
        """
        self._children[pid] = call
        self._loop.after(0, self._reap)

    def on_configure(self, call: Callable[[], None]) -> None:
        """``call`` after ``configuration`` or ``numbers`` changed. Without one, a change ends the
        worker: a new one is started.
        """
        self._on_configure.append(call)

    def on_stop(self, call: Callable[[], None]) -> None:
        """``call`` when the worker is told to stop; then `loop` returns."""
        self._on_stop.append(call)

    def on_log(self, call: Callable[[list[str]], None]) -> None:
        """``call(lines)`` with log lines of the supervisor."""
        self._on_log.append(call)

    def on_stack(self, call: Callable[[str, str], None]) -> None:
        """``call(worker, text)`` with the stack of a worker that hung."""
        self._on_stack.append(call)

    def stop(self) -> None:
        """End: `on_stop` is called, `loop` returns, `wait` raises SystemExit(0)."""
        if not self._must_stop:
            self._must_stop = True
            if self._soon is not None:
                self._beat()  # our successor may want to know it
            for call in self._on_stop:
                call()

    # the bus

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The ZeroMQ context, opened at first use."""
        if self._context is None:
            self._context = sockets.new_context()
        return self._context

    def serve(self) -> Server:
        """The serving socket of this worker; the same one each time. Raises SocketPathError."""
        if self._server is None:
            if self._start.listener is None:
                raise RuntimeError(
                    f"{self.name} was started without a listener: its roster row must say that it"
                    " serves"
                )
            path = self.paths.bus / self.name
            self._server = Server(
                self._loop_for_bus,
                self.context,
                path,
                self._start.listener,
                state=self._start.state,
                faults=self.faults,
            )
        return self._server

    def client(self, server_name: str) -> Client:
        """A client of the worker ``server_name``, whether it runs or not. Raises
        SocketPathError.
        """
        return Client(self._loop_for_bus, self.context, self.paths.bus / server_name, self.faults)

    # working

    def loop(self) -> None:
        """Work until told to stop."""
        self._is_looping = True
        while not self._must_stop:
            self._loop.turn()

    def wait(self, is_true: Callable[[], bool], deadline_s: float, reason: str) -> bool:
        """Go on with the loop until ``is_true()``; False when the deadline passed first. For
        one-shots.
        """
        ends_at = self.now() + deadline_s
        self.doing(reason)
        if not self._is_ready:
            self.busy(deadline_s + LEASE_SLACK_S, reason)
        wake = self._loop.after(deadline_s, _nothing)
        try:
            while not is_true():
                if self._must_stop:
                    raise SystemExit(0)
                if self.now() >= ends_at:
                    return False
                self._loop.turn()
        finally:
            wake.cancel()
        return True

    def run(self, argv: Sequence[str], *, deadline_s: float, **options: Any) -> Any:
        """`distro.run.run` among our tools: heartbeats go on, and a lease holds while it runs.

        Give ``place=worker.outside`` to whatever may leave a daemon behind: it must not be killed
        together with us.
        """
        from waagent.distro import run as tools

        lease_ends_at = self._lease(deadline_s, argv[0])

        def tick() -> None:
            nonlocal lease_ends_at
            self._beat_when_due()
            if self.now() > lease_ends_at - LEASE_SLACK_S:
                lease_ends_at = self._lease(deadline_s, argv[0])

        options.setdefault("place", self.place)
        try:
            return tools.run(argv, deadline_s=deadline_s, tick=tick, **options)
        finally:
            self.busy(0, self._doing)

    def place_tool(self, pid: int) -> None:
        """Move our child ``pid`` into the place of our tools, which has limits of its own; where
        there is none it stays in ours.
        """
        for file in self._tools or self.place:
            with contextlib.suppress(OSError):  # it ended, or is not ours to move
                with open(file, "wb", buffering=0, closefd=isinstance(file, str)) as procs:
                    procs.write(str(pid).encode())

    def _lease(self, seconds: float, tool: str) -> float:
        seconds = min(seconds + 2 * LEASE_SLACK_S, LEASE_LIMIT_S)
        self.busy(seconds, f"running {os.path.basename(tool)}")
        return self.now() + seconds

    # the supervisor

    @property
    def _progress(self) -> int:
        return self._loop.turns

    @property
    def _loop_for_bus(self) -> _BusLoop:
        return _BusLoop(self)

    def _say(self, kind: str, **fields: Any) -> None:
        self._control.say(kind, **fields)
        self._watch_for_room()

    def _watch_for_room(self) -> None:
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
        self._control.beat(self._doing, self._progress, self._facts)

    def _beat_soon(self) -> None:
        if self._soon is not None:
            return
        wait_s = self._said_at + DOING_EVERY_S - self._loop.now()
        if wait_s <= 0:
            self._beat()
        else:
            self._soon = self._loop.after(wait_s, self._beat)

    def _beat_when_due(self) -> None:
        if self._loop.now() >= self._beat_at:
            self._beat_at = next_beat_at(self._loop.now(), self._start.beat_s)
            self._beat()

    def _beat_and_go_on(self) -> None:
        self._beat_when_due()
        self._loop.after(self._beat_at - self._loop.now(), self._beat_and_go_on)

    def _listen(self) -> None:
        for message, descriptors in self._control.receive():
            adopt_log(descriptors)
            kind = message["type"]
            if kind == "configure":
                self._configure(configured(message))
            elif kind == "stop":
                self.stop()
            elif kind == "log":
                lines = [str(line) for line in message.get("lines") or ()]
                for take_lines in self._on_log:
                    take_lines(lines)
            elif kind == "stack":
                for take_stack in self._on_stack:
                    take_stack(str(message.get("worker")), str(message.get("text")))

    def _configure(self, told: Configured) -> None:
        self.log.verbose = told.verbose
        if (told.configuration, told.numbers) == (self.configuration, self.numbers):
            return
        self.configuration, self.numbers = told.configuration, told.numbers
        if self._on_configure:
            for call in self._on_configure:
                call()
        elif self._is_looping:  # a one-shot goes on with what it began with
            self.log.info("configuration changed, ending so that a new worker applies it")
            self.stop()

    def _reap(self) -> None:
        for pid in list(self._children):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # a Popen that was thrown away reaps behind our back
                ended, status = pid, EXIT_UNKNOWN << 8
            if ended == pid:
                self._children.pop(pid)(os.waitstatus_to_exitcode(status))


class _BusLoop:
    """The loop as the bus sees it: waiting is the worker's, so that it is shown and leased."""

    def __init__(self, worker: Worker) -> None:
        self.now = worker._loop.now
        self.on_readable = worker._loop.on_readable
        self.forget = worker._loop.forget
        self.after = worker._loop.after
        self.wait = worker.wait


def run(name: str, start: WorkerStart, main: Callable[[Worker], None] | None = None) -> NoReturn:
    """Live as the worker ``name`` until the end of the process; ``main`` is that of its room unless
    given.
    """
    log = PROCESS
    log.owner = name
    try:
        status = _live(start, log, main)
    except SupervisorGone as error:
        log.info("%s", error)
        status = EXIT_ORPHANED
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
    # the outermost loop of this process: the supervisor is our error handling for the unforeseen
    except Exception:
        log.exception(
            "unforeseen error: %s: see the traceback; the supervisor starts a new worker", name
        )
        status = EXIT_UNFORESEEN
    # nothing here needs a farewell, and what was inherited by a fork must not run its own
    os._exit(status)


def _live(start: WorkerStart, log: Log, main: Callable[[Worker], None] | None) -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.register(
        signal.SIGUSR1, file=start.stack if start.stack >= 0 else 2, all_threads=False
    )
    paths = Paths(start.root)
    control = Control(paths.control_socket)
    told = control.greet(start.build)
    log.verbose = told.verbose
    worker = Worker(start, control, told, log, Loop())
    main = main or importlib.import_module(f"waagent.workers.{start.name}.main").main
    main(worker)
    control.flush_all()
    return 0


def _nothing() -> None:
    """Wakes the loop."""
