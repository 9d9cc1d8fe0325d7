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

from waagent.distro.paths import Paths
from waagent.protocol.base.log import PROCESS, Log
from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.worker_start import WorkerStart
from waagent.workers.bus_sockets import BusSockets
from waagent.workers.control import Configured, Control, SupervisorGone
from waagent.workers.journal_lines import JournalLines
from waagent.workers.loop import Loop
from waagent.workers.supervisor_link import LEASE_LIMIT_S, SupervisorLink

EXIT_UNFORESEEN = 70
EXIT_ORPHANED = 75
LEASE_SLACK_S = 5.0


class Worker:
    """A worker's view of the world: what it says to the ``supervisor`` and hears from it, the
    ``loop`` that calls it, its sockets on the ``bus``, ``log`` and ``faults`` (what repeats).
    """

    def __init__(
        self, start: WorkerStart, control: Control, told: Configured, log: Log, loop: Loop
    ) -> None:
        self.name = start.name
        self.build = start.build
        self.place = start.place
        self.outside = start.outside
        self.state = start.state
        """The state file, opened for reading before the fence (`state_table.read_state`)."""
        self.paths = Paths(start.root)
        self.log = log
        self.faults = Faults(log, loop.now)
        self.told_before: Mapping[str, Any] = told.told_before
        """What this worker's predecessor told last."""
        self.loop = loop
        self.supervisor = SupervisorLink(control, told, log, loop, start.beat_s)
        self.bus = BusSockets(start, self.paths.bus, _BusLoop(self), self.faults)
        self._tools = start.tools
        self._handover = start.handover
        loop.on_signal(signal.SIGTERM, loop.stop)

    @property
    def configuration(self) -> Mapping[str, Any]:
        """This worker's options of waagent.conf, as the supervisor said them last."""
        return self.supervisor.configuration

    @property
    def numbers(self) -> Sequence[int]:
        """What those want of this worker who want it, e.g. ports."""
        return self.supervisor.numbers

    @property
    def handover_listener(self) -> int:
        """Raw descriptor of the socket beside the bus on which connections are handed over (roster:
        hands_over).
        """
        if self._handover is None:
            raise RuntimeError(
                f"{self.name} was started without a socket to hand connections over: its roster row"
                " must say that it does"
            )
        return self._handover

    def wait(self, is_true: Callable[[], bool], deadline_s: float, reason: str) -> bool:
        """Go on with the loop until ``is_true()``; False when the deadline passed first. For
        one-shots: a lease holds until then.
        """
        self.supervisor.doing(reason)
        if not self.supervisor.is_ready:
            self.supervisor.busy(deadline_s + LEASE_SLACK_S, reason)
        return self.loop.wait(is_true, deadline_s)

    def run(self, argv: Sequence[str], *, deadline_s: float, **options: Any) -> Any:
        """`distro.run.run` among our tools: heartbeats go on, and a lease holds while it runs.

        Give ``place=worker.outside`` to whatever may leave a daemon behind: it must not be killed
        together with us.
        """
        from waagent.distro import run as tools

        lease_ends_at = self._lease(deadline_s, argv[0])

        def tick() -> None:
            nonlocal lease_ends_at
            self.supervisor.beat_when_due()
            if self.loop.now() > lease_ends_at - LEASE_SLACK_S:
                lease_ends_at = self._lease(deadline_s, argv[0])

        options.setdefault("place", self.place)
        try:
            return tools.run(argv, deadline_s=deadline_s, tick=tick, **options)
        finally:
            self.supervisor.busy(0, self.supervisor.doing_now)

    def place_tool(self, pid: int) -> None:
        """Move our child ``pid`` into the place of our tools, which has limits of its own. Nothing
        for a root worker: its children join ``place`` themselves.
        """
        for descriptor in self._tools:
            with contextlib.suppress(OSError):  # it ended, or is not ours to move
                os.write(descriptor, str(pid).encode())

    def _lease(self, seconds: float, tool: str) -> float:
        seconds = min(seconds + 2 * LEASE_SLACK_S, LEASE_LIMIT_S)
        self.supervisor.busy(seconds, f"running {os.path.basename(tool)}")
        return self.loop.now() + seconds


class _BusLoop:
    """The loop as the bus sees it: waiting is the worker's, so that it is shown and leased."""

    def __init__(self, worker: Worker) -> None:
        self.now = worker.loop.now
        self.on_readable = worker.loop.on_readable
        self.forget = worker.loop.forget
        self.after = worker.loop.after
        self.wait = worker.wait


def run(name: str, start: WorkerStart, main: Callable[[Worker], None] | None = None) -> NoReturn:
    """Live as the worker ``name`` until the end of the process; ``main`` is that of its room unless
    given.
    """
    log = PROCESS
    log.owner = name
    log.also = JournalLines(name, Paths(start.root))
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
