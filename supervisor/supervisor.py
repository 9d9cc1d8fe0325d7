"""The supervisor: one thread that turns what happens into events, and carries out what
`transitions` makes of them.

Before READY it reads and writes what it needs; afterwards it touches no disk (SIGHUP apart): all it
does is read sockets, write to `/run/waagent/state` in place, and speak to the kernel. A peer's
mistake is refused where its message is parsed (`control_server`); an error of ours ends the
process, and init starts it again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import waagent
from waagent.distro import children, folders, locks, log_file, machine, process_tree, sockets
from waagent.distro.cgroups import trees
from waagent.distro.fences import prctl
from waagent.distro.paths import Paths
from waagent.protocol import control, exit_codes, state_table
from waagent.protocol.configuration.supervisor_settings import Settings, take_settings
from waagent.protocol.state_table import DONE, IDLE, OFF, READY, STARTING, Table
from waagent.supervisor import events as e
from waagent.supervisor import states, transitions
from waagent.supervisor.control_server import Connection, ControlServer
from waagent.supervisor.control_table import Greeting, Request
from waagent.supervisor.journal import Journal
from waagent.supervisor.poll import LAG_S, Turns, Watch
from waagent.supervisor.reading import Reading, reader_argv
from waagent.supervisor.report import Report
from waagent.supervisor.roster import ROSTER, Row
from waagent.supervisor.sd_notify import ServiceNotifier
from waagent.supervisor.states import NEVER
from waagent.supervisor.worker_cgroups import WorkerCgroups
from waagent.supervisor.zygote.contract import build_id
from waagent.supervisor.zygote_client import PACKAGE, Switches, ZygoteClient

if TYPE_CHECKING:
    from waagent.supervisor.events import Event, Word

LOG_WORKER = "environment_monitor"  # writes our lines and the stacks of hung workers
SUSPENDED_S = 2.0  # BOOTTIME runs ahead of MONOTONIC while the VM sleeps
# heartbeats are written with the next event after that; whatever else happens is written at once
BEATS_S = 4.0
EXIT_POLL_S = 0.2  # without a subreaper workers are init's children, and their exits are looked for
_NO_RESTART = {
    "unknown": "is no worker",
    DONE: "has done its work for this boot",
    IDLE: "is not wanted",
    OFF: "is off",
}


def main() -> int:
    """The supervisor of this machine: ROOT SETTINGS MAIN_FILE VERBOSE WITHOUT...

    SETTINGS is the descriptor of a file with its settings; MAIN_FILE and VERBOSE are what
    configuration_reader needs to write them anew.
    """
    root, settings, main_file, verbose, *without = sys.argv[1:]
    prctl.set_name("waagent")
    reader = reader_argv(root, main_file, verbose)
    modules = tuple(f"waagent.workers.{row.name}.main" for row in ROSTER if not row.is_brief)
    switches = Switches(frozenset(without), tree=trees.tree_name(root), modules=modules)
    return supervise(Paths(root), ROSTER, take_settings(int(settings)), reader, switches)


def supervise(
    paths: Paths, rows: tuple[Row, ...], settings: Settings, reader: list[str], switches: Switches
) -> int:
    """Run ``rows`` until SIGTERM (0), an upgrade (75) or an error (1); a second supervisor ends at
    once (1).
    """
    for folder, mode in ((paths.run, 0o755), (paths.locks, 0o700), (paths.bus, 0o755)):
        folders.make_folder(folder, mode)
    try:
        locks.take_lock(paths.locks / "supervisor")
    except locks.Held as error:
        print(f"waagent: {error}", file=sys.stderr)
        return exit_codes.FAILED
    log, standard_error = log_file.open_log(paths.log), os.dup(2)
    try:
        return Supervisor(paths, rows, settings, reader, switches, log).run()
    # the outermost loop of this process: the workers die with us, and init starts us again
    except Exception:
        from waagent.supervisor import last_words  # and `traceback`: 1 MiB, only now

        last_words.say(paths.run, log, standard_error)
        return exit_codes.FAILED


class Supervisor:
    """What is kept between two turns. Invariant: ``workers`` changes only by `transitions.step`,
    whose actions are carried out at once.
    """

    def __init__(
        self,
        paths: Paths,
        rows: tuple[Row, ...],
        settings: Settings,
        reader: list[str],
        switches: Switches,
        log: int,
    ) -> None:
        """Everything that needs the disk, and the end of what a dead supervisor left."""
        children.redirect_standard(log)
        without = switches.without
        self.subreaper = "subreaper" not in without and prctl.set_child_subreaper()
        if not self.subreaper:
            switches = switches._replace(without=without | {"subreaper"})
        self.paths, self.settings, self.reading = paths, settings, Reading(reader, log)
        journald = sockets.connect_datagram(paths.under("/run/systemd/journal/socket"))
        self.journal = Journal(log, journald)
        self.service = ServiceNotifier(os.environ if "systemd" not in without else {})
        self.asleep_s = machine.asleep_s()
        self.build = build_id(PACKAGE)
        vm_id = machine.vm_id(paths.root)
        self.report = Report(paths.state, self.build, process_tree.boot_id(), vm_id)
        bases = () if "cgroups" in without else trees.bases_of_self()
        self.cgroups = WorkerCgroups(bases, switches.tree, psi="psi" not in without)
        self.zygote = ZygoteClient(rows, paths, switches, self.build, log, self.cgroups)
        self.ticks: dict[int, int | None] = {os.getpid(): process_tree.start_ticks(os.getpid())}
        self.status: int | None = None
        self.write_at = NEVER
        self.watch = Watch()
        self.signals = sockets.receive_signals(
            (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        )
        self.watch.add(self.signals)
        self._end_remains()
        self.cgroups.make({row.name: (row.memory_mib, row.pids, row.tools_mib) for row in rows})
        self._exec_zygote()
        self.workers = states.begin(rows, settings.off, self.report.rows_before())
        listener = sockets.listen(paths.control_socket, 0o666)
        self.control = ControlServer(listener, self.watch, self._worker_of)
        self.report.missing = (
            *machine.protect_supervisor(without, self.cgroups.description),
            *self.cgroups.refused,
        )

    def _end_remains(self) -> None:
        """Operations apart, nothing of the last supervisor stays: what its state file names, and
        what lives in our leaves.
        """
        children.kill_recorded(self.report.processes_before())
        if left := self.cgroups.clear():
            text = f"{len(left)} processes of the last supervisor cannot be killed: {left[:5]}"
            self.note("warning", "", text)

    # the loop
    def run(self) -> int:
        """Turn until there is nothing left to do; the exit status."""
        self._say_findings(
            f"waagent {waagent.__version__} supervises {len(self.workers.lives)} workers"
            f" build={self.build}"
        )
        self.journal.direct = False
        self.service.send("READY=1")
        self.step(e.Tick(0.0, frozenset(), frozenset()))
        turns = Turns(time.monotonic())
        while self.status is None:
            due = min(
                states.next_due(self.workers),
                self.control.next_due(),
                self.zygote.due,
                self.service.due,
                NEVER if self.subreaper else turns.began + EXIT_POLL_S,
            )
            ready = self.watch.wait(turns.pause_s(due, time.monotonic()))
            now = time.monotonic()
            self._turn(ready, now, turns.lag_s(now))
        return self._leave(self.status)

    def _turn(self, ready: Iterable[Any], now: float, lag: float) -> None:
        """All that was said is heard before any deadline is judged."""
        for source in ready:
            if source is self.control:
                for connection in self.control.accept_all(now):
                    self._hear(connection)
            elif isinstance(source, Connection):
                self._hear(source)
            elif source is self.zygote.channel:
                self._hear_zygote()
            elif source is self.signals:
                self._take_signals()
        self._look_for_exits()
        if now >= self.zygote.due and self.zygote.channel is None:
            self._exec_zygote()
        elif now >= self.zygote.due:
            self._replace_zygote("did not answer in time")
        if now >= states.next_due(self.workers) or lag > LAG_S:
            self._judge(now, lag)
        self.control.expire(now)
        self.service.beat(now)
        self._hand_over()
        if time.monotonic() >= self.write_at:
            self._write_state()

    def step(self, event: Event) -> None:
        """One event, and what follows from it."""
        now = time.monotonic()
        self.workers, actions = transitions.step(self.workers, event, now)
        self.write_at = min(self.write_at, now + (BEATS_S if type(event) is e.Beat else 0.0))
        for action in actions:
            _CARRY_OUT[type(action)](self, action)

    def _judge(self, now: float, lag: float) -> None:
        slept_s = machine.asleep_s() - self.asleep_s
        if slept_s > SUSPENDED_S:
            self.note("warning", "", f"VM was suspended {slept_s:.0f} s")
            self.asleep_s += slept_s
        if lag > LAG_S:
            text = f"the supervisor did not run for {lag:.0f} s; every limit is moved by that"
            self.note("warning", "", text)
        late = {one.row.name: one for one in states.overdue(self.workers, now)}
        stalled = frozenset(
            name
            for name, one in late.items()
            if one.doubted and self.cgroups.is_stalled(name, one.pid)
        )
        occupied = frozenset(
            name for name, one in late.items() if one.pid is None and self.cgroups.is_occupied(name)
        )
        self.step(e.Tick(lag, stalled, occupied))

    # what is heard on the control socket: control_table.MESSAGES names these methods
    def _worker_of(self, pid: int) -> str | None:
        return next((name for name, one in self.workers.lives.items() if one.pid == pid), None)

    def _hear(self, connection: Connection) -> None:
        for method, said in self.control.hear(connection):
            getattr(self, method)(connection, said)

    def greet(self, connection: Connection, said: Greeting) -> None:
        """A worker's code runs; one of another build is not answered, and killed when it is
        late.
        """
        name = connection.sender.worker
        if said.build == self.build and self.workers.lives[name].state == STARTING:
            connection.greeted = True
            self.step(e.Hello(name, connection.sender.pid, self.zygote.guard(name)))

    def take_word(self, connection: Connection, said: Word) -> None:
        """What a worker says is an event."""
        self.step(said)

    def answer_list(self, connection: Connection, said: Request) -> None:
        """The table."""
        try:
            packet = control.pack("table", **state_table.table_map(self._table()))
        except control.ControlError as error:  # several workers told all that they may
            packet = control.pack("refused", reason=str(error))
        connection.deliver(packet)

    def answer_restart(self, connection: Connection, said: Request) -> None:
        """One worker anew, when it is one that runs or would."""
        one = self.workers.lives.get(said.name)
        refusal = _NO_RESTART.get("unknown" if one is None else one.state)
        if refusal is None:
            _answer(connection, f"{said.name} is restarted")
            self.step(e.Restart(said.name))
        else:
            connection.send(control.pack("refused", reason=f"{said.name} {refusal}"))

    def answer_stop(self, connection: Connection, said: Request) -> None:
        """The end of the agent."""
        _answer(connection, "stopping")
        self._end()

    def answer_reload(self, connection: Connection, said: Request) -> None:
        """Configuration and log, as with SIGHUP."""
        _answer(connection, "configuration and log are read and opened again")
        self._read_anew()

    # signals and exits
    def _take_signals(self) -> None:
        numbers = set(self.signals.recv(512))
        for pid, status in children.reap() if signal.SIGCHLD in numbers else ():
            self._reap(pid, status)
        if signal.SIGHUP in numbers:
            self._read_anew()
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._end()

    def _look_for_exits(self) -> None:
        """Without a subreaper nobody tells us."""
        if not self.subreaper:
            for pid in [one.pid for one in self.workers.lives.values() if one.pid is not None]:
                if not process_tree.is_alive(pid, self.ticks.get(pid)):
                    self._reap(pid, -signal.SIGKILL)

    def _reap(self, pid: int, status: int) -> None:
        """A child ended: the zygote, a worker, or a stranger's orphan, which nobody counts."""
        name = self._worker_of(pid)
        self.ticks.pop(pid, None)
        if pid == self.zygote.pid:
            self._replace_zygote(f"ended ({status})")
        elif pid == self.reading.pid:
            self._reload(status)
        elif name is not None:
            connection = self.control.of(name)
            if connection is not None:
                self._hear(connection)  # its last words, such as `done`
            self.control.forget(pid)
            self.cgroups.kill(name, None)
            left = self.cgroups.is_occupied(name)
            self.step(e.Exited(name, pid, status, left, machine.chance()))

    # the zygote
    def _hear_zygote(self) -> None:
        for answer in self.zygote.answers(time.monotonic()):
            if isinstance(answer, e.Forked):
                self.ticks[answer.pid] = process_tree.start_ticks(answer.pid)
            elif isinstance(answer, e.Upgrade):
                text = "another build is installed; the agent starts anew when no lease is held"
                self.note("warning", "", text)
            self.step(answer)

    def _exec_zygote(self) -> None:
        try:
            self.watch.add(self.zygote.exec_zygote(time.monotonic()))
            self.ticks[self.zygote.pid] = process_tree.start_ticks(self.zygote.pid)
        except OSError as error:
            self._replace_zygote(f"cannot be started ({error.strerror})")

    def _replace_zygote(self, reason: str) -> None:
        self._hear_zygote()
        if self.zygote.channel is not None:
            self.watch.remove(self.zygote.channel)
        pid, now = self.zygote.pid, time.monotonic()
        lost = self.zygote.lose_zygote(now, reason)
        text = f"zygote {pid or ''} {reason}; a new one starts in {self.zygote.due - now:.1f} s"
        self.note("warning", "", text)
        for failed in lost:
            self.step(failed)

    # what is done
    def _start(self, action: e.Start) -> None:
        reason = self.zygote.order(action, time.monotonic())
        if reason is not None:
            self.step(e.StartFailed(action.name, action.run, reason))

    def _open(self, action: e.Open) -> None:
        self._write_state()  # admission to the bus reads the pid there
        self.zygote.open_gate(action.name)

    def _abandon(self, action: e.Abandon) -> None:
        self.zygote.close_gate(action.name)

    def _configure(self, action: e.Configure) -> None:
        self._send_configuration(action.name)

    def _send_configuration(self, name: str, descriptors: tuple[int, ...] = ()) -> None:
        packet = control.pack(
            "configure",
            configuration=dict(self.settings.by_worker.get(name, {})),
            numbers=list(self.workers.lives[name].numbers),
            verbose=self.settings.verbose,
            facts=dict(self.workers.lives[name].facts),
        )
        if connection := self.control.of(name):
            connection.deliver(packet, descriptors)

    def _say_stop(self, action: e.SayStop) -> None:
        if connection := self.control.of(action.name):
            connection.deliver(control.pack("stop"))

    def _take_stack(self, action: e.TakeStack) -> None:
        pid = self.workers.lives[action.name].pid
        process_tree.signal_all(filter(None, [pid]), signal.SIGUSR1)

    def _kill(self, action: e.Kill) -> None:
        if stack := "\n".join(control.clean(self.zygote.stack(action.name).splitlines())):
            self.report.stacks[action.name] = str(self.paths.hang_folder / f"{action.name}.hang")
            self.journal.keep_stack(action.name, stack)
        self.cgroups.kill(action.name, self.workers.lives[action.name].pid)

    def _note(self, action: e.Note) -> None:
        self.note(action.level, action.name, action.text)

    def _set_status(self, action: e.Leave) -> None:
        self.status = action.status

    def note(self, level: str, name: str, text: str) -> None:
        """A line in the log; what concerns the agent as a whole is shown to operators as well."""
        self.journal.write(level, name, text)
        if not name:
            self.report.notes.append(text)

    def _end(self) -> None:
        self.journal.write("info", "", "stopping; operations go on")
        self.service.send("STOPPING=1")
        self.step(e.End(0))

    # the configuration
    def _read_anew(self) -> None:
        """SIGHUP: a process reads the configuration; its end brings it."""
        try:
            self.reading.start()
        except OSError as error:
            text = f"reload: no process for it: {error.strerror}: send SIGHUP again"
            self.note("error", "", text)

    def _reload(self, status: int) -> None:
        """The configuration was read; the log anew, too: the one time when the disk is touched."""
        try:
            self.settings = self.reading.take()
            log_file.reopen_log(self.paths.log, self.journal.log)
        except (OSError, ValueError) as error:
            text = f"reload failed, what was before holds ({status}, {error})"
            self.note("error", "", f"{text}: see waagent -check-configuration")
        for name in self.workers.lives:
            self._send_configuration(name, (self.journal.log,))
        self._say_findings("configuration and log file are read and opened again")
        self.step(e.Switched(self.settings.off))

    def _say_findings(self, text: str) -> None:
        self.journal.write("info", "", text)
        for finding in self.settings.findings:
            self.journal.write("warning", "", finding)

    def _hand_over(self) -> None:
        """Our lines and stacks to the worker that writes them, as long as it is heard: what a
        stopped one is sent would be lost.
        """
        connection, writer = self.control.of(LOG_WORKER), self.workers.lives.get(LOG_WORKER)
        if connection and writer and writer.state == READY:
            if time.monotonic() - (writer.beat_at or 0.0) < writer.row.beat_s + 1:
                self.journal.flush(connection.send)

    # what is shown
    def _table(self) -> Table:
        return self.report.table(
            self.workers,
            self.ticks,
            self.zygote.pid,
            self.cgroups.description,
            self.control.refused,
        )

    def _write_state(self) -> None:
        self.write_at = NEVER
        if failure := self.report.write(self._table()):
            self.journal.write("error", "", failure)
        found = [one.state for one in self.workers.lives.values()]
        counts = [f"{found.count(state)} {state}" for state in sorted(set(found))]
        self.service.say_status(", ".join(counts))

    def _leave(self, status: int) -> int:
        """The end: no worker, no zygote, no socket."""
        self.journal.write_directly()
        self.zygote.lose_zygote(time.monotonic(), "ends")
        self.cgroups.leave()
        self._write_state()
        self.paths.control_socket.unlink(missing_ok=True)
        return status


def _answer(connection: Connection, text: str) -> None:
    connection.send(control.pack("answer", text=text))


_CARRY_OUT: dict[type, Callable[[Supervisor, Any], None]] = {
    e.Start:     Supervisor._start,
    e.Open:      Supervisor._open,
    e.Abandon:   Supervisor._abandon,
    e.Configure: Supervisor._configure,
    e.SayStop:   Supervisor._say_stop,
    e.TakeStack: Supervisor._take_stack,
    e.Kill:      Supervisor._kill,
    e.Note:      Supervisor._note,
    e.Leave:     Supervisor._set_status,
}  # fmt: skip
