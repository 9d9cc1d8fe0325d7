"""The supervisor: one thread that turns what happens into events of `life`, and carries out what `life` says.

Before READY it reads and writes what it needs; afterwards it touches no disk (SIGHUP apart): all it does is read sockets,
write to `/run/waagent/state` in place, and speak to the kernel.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import waagent
from waagent.distro import fences, files, processes
from waagent.distro.paths import Paths
from waagent.protocol import control, statefile
from waagent.supervisor import channel, journal, life, notify, spawn
from waagent.supervisor import events as e
from waagent.supervisor.roster import BUS_GROUP, ROSTER, Row
from waagent.supervisor.zygote import build_id

LOG_WORKER = "environment_monitor"  # writes our lines and the stacks of hung workers
OOM_SCORE = -900
SUSPENDED_S = 2.0  # BOOTTIME runs ahead of MONOTONIC while the VM sleeps
EMPTY_S = 1.0
_POLL_S = 0.5  # for exits, where there is neither a subreaper nor a pidfd
_NOTES = 8


class Settings(NamedTuple):
    """The configuration as far as the supervisor hands it on."""

    by_worker: Mapping[str, Mapping[str, Any]]
    off: frozenset[str] = frozenset()
    verbose: bool = False
    findings: tuple[str, ...] = ()


class AlreadyRunning(Exception):
    """Another supervisor holds the lock; the text names its pid and the file."""


def run_daemon(paths: Paths, loaded: Any, without: frozenset[str], verbose: bool) -> int:
    """`waagent -daemon`: supervise the roster until we are told to stop; the exit status."""
    from waagent.protocol import configuration

    def settings_of(values: Mapping[str, Any], findings: Iterable[Any]) -> Settings:
        by_worker = {row.name: configuration.for_worker(values, row.keys) for row in ROSTER}
        off = frozenset(row.name for row in ROSTER if row.switch and values.get(row.switch) is False)
        return Settings(by_worker, off, verbose or bool(values.get("Logs.Verbose")), tuple(str(finding) for finding in findings))

    def read_again() -> Settings:
        fresh = configuration.load(paths)
        return settings_of(fresh.values, fresh.findings)

    first = settings_of(loaded.values, loaded.findings)
    try:
        return supervise(paths, ROSTER, first, read_again, spawn.Switches(without))
    except AlreadyRunning as error:
        print(f"waagent: {error}", file=sys.stderr)
        return 1


def supervise(paths: Paths, rows: tuple[Row, ...], settings: Settings, read_again: Callable[[], Settings], switches: spawn.Switches) -> int:
    """Run ``rows`` until SIGTERM (0) or an upgrade (75). Raises AlreadyRunning."""
    for folder in (paths.run, paths.locks, paths.bus):
        files.make_folder(folder, 0o755)
    lock = take_lock(paths.locks / "supervisor")
    log = open_log(paths.log)
    supervisor = Supervisor(paths, rows, settings, read_again, switches, log)
    try:
        supervisor.prepare()
        return supervisor.run()
    except Exception:  # the outermost loop of this process: the workers die with us, and init starts us again
        os.write(log, traceback.format_exc().encode())
        return 1
    finally:
        os.close(lock)


def take_lock(path: Path) -> int:
    """The descriptor that holds the lock file, which is never unlinked. Raises AlreadyRunning."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise AlreadyRunning(f"already running: pid {pid} holds {path}: stop it first, or use waagent-ps") from None
        held = os.fstat(lock)
        if path.exists() and path.stat().st_ino == held.st_ino and held.st_nlink == 1:
            break
        os.close(lock)  # somebody removed the file between our open and our lock
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def open_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)


class Supervisor:
    """What is kept between two turns of the loop. Invariant: ``table`` changes only by `life.step`, its actions are carried out at once."""

    def __init__(
        self, paths: Paths, rows: tuple[Row, ...], settings: Settings, read_again: Callable[[], Settings], switches: spawn.Switches, log: int
    ) -> None:
        self.paths, self.rows, self.settings, self.read_again, self.switches = paths, rows, settings, read_again, switches
        self.journal = journal.Journal(log, paths.under("/run/systemd/journal/socket"), settings.verbose)
        self.notifier = notify.Notifier(os.environ if "systemd" not in switches.without else {})
        self.selector = selectors.DefaultSelector()
        self.build, self.boot_id = build_id(spawn.PACKAGE), processes.boot_id()
        self.vm_id = _vm_id(paths.under("/sys/class/dmi/id/product_uuid"))
        self.listeners = {row.name: channel.bind(paths.bus / row.name, 0o660, _bus_group(), socket.SOCK_STREAM) for row in rows if row.serves}
        self.nursery = spawn.Nursery(paths, rows, switches, self.build, log, self.listeners)
        self.table = life.begin(rows, {}, settings.off)
        self.missing: list[str] = []
        self.notes: deque[str] = deque(maxlen=_NOTES)
        self.stacks: dict[str, str] = {}
        self.pending_stacks: deque[bytes] = deque(maxlen=_NOTES)
        self.ticks: dict[int, int | None] = {}
        self.pidfds: dict[int, int | None] = {}
        self.started_at = time.monotonic()
        self.asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_at
        self.status: int | None = None
        self.changed = False

    # before READY
    def prepare(self) -> None:
        """Everything that needs the disk, and the end of what a dead supervisor left."""
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor, source in ((0, null), (1, self.journal.log), (2, self.journal.log)):
            os.dup2(source, descriptor)
        os.close(null)
        self._wake = _signals_to_socket()
        self.selector.register(self._wake, selectors.EVENT_READ, self._wake)
        state = os.open(self.paths.state, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        before = _read_before(state)
        self.state = statefile.StateWriter(state)
        self._end_remains(before)
        self.nursery.make_places()
        self._look_what_is_missing()
        self._exec_zygote(time.monotonic())
        results = before.get("workers", ()) if _is_same(before, self._identity()) else ()
        done = {row["name"]: str(row["result"]) for row in results if row["state"] == life.DONE and row.get("kind") == "oneshot"}
        self.table = life.begin(self.rows, done, self.settings.off)
        self.control = channel.Channel(self.paths.control_socket, self.selector, self._worker_of)
        for finding in self.settings.findings:
            self.journal.write("warning", "", finding)
        self.journal.write("info", "", f"waagent {waagent.__version__} supervises {len(self.rows)} workers build={self.build}")

    def _end_remains(self, before: Mapping[str, Any]) -> None:
        old = [(row["pid"], row["start_ticks"]) for row in (*before.get("workers", ()), before.get("zygote", {})) if row.get("pid")]
        if before.get("boot_id") == self.boot_id:
            for pid, ticks in old:
                if pid != os.getpid() and processes.is_alive(pid, ticks):
                    spawn.signal_to(pid, signal.SIGKILL)
        left = self.nursery.tree.empty(deadline_s=EMPTY_S)
        if left:
            self.note("warning", "", f"{len(left)} processes of the last supervisor cannot be killed: {left[:5]}")

    def _look_what_is_missing(self) -> None:
        without = self.switches.without
        self.subreaper = "subreaper" not in without and fences.set_child_subreaper()
        checks = (
            (self.subreaper, "no subreaper: exits are watched, their status is not known"),
            (self.nursery.tree.description != "none", "no cgroups: rlimits only, a killed worker's tools may stay"),
            ("landlock" not in without and fences.landlock_level() > 0, "no landlock: unprivileged workers see all files that their uid may"),
            ("psi" not in without and processes.memory_pressure_full_avg10() is not None, "no PSI: memory pressure does not extend limits"),
            (fences.set_oom_score(OOM_SCORE), "oom_score_adj cannot be lowered: the supervisor may be killed for memory"),
            (fences.lock_memory(), "memory cannot be locked: a stalled disk may stop the supervisor"),
        )
        self.missing = [text for there, text in checks if not there]

    def _exec_zygote(self, now: float) -> None:
        end = self.nursery.exec_zygote(now)
        self.ticks[self.nursery.pid] = processes.start_ticks(self.nursery.pid)
        self.selector.register(end, selectors.EVENT_READ, end)

    # the loop
    def run(self) -> int:
        """Turn until there is nothing left to do; the exit status."""
        self.journal.direct = False
        self.notifier.send("READY=1")
        self.step(e.Tick(0.0, frozenset(), frozenset()))
        began = time.monotonic()
        while self.status is None:
            due = min(life.next_due(self.table), self.control.next_due(), self.nursery.due, self.notifier.due, self._poll_due(began))
            entered = time.monotonic()
            ready = self.selector.select(None if due == life.NEVER else max(0.0, due - entered))
            now = time.monotonic()
            worked_s = entered - began  # a turn that itself took long: nobody was heard meanwhile
            lag = max(0.0, now - max(due, entered)) + (worked_s if worked_s > life.LAG_S else 0.0)
            began = now
            self._turn(ready, now, lag)
        return self._leave()

    def _turn(self, ready: Iterable[tuple[selectors.SelectorKey, int]], now: float, lag: float) -> None:
        if any(key.data is self._wake for key, _ in ready):
            self._take_signals()
        for key, _ in ready:
            if isinstance(key.data, channel.Connection):
                self._hear(key.data, now)
            elif key.data is self.nursery.channel:
                self._hear_zygote()
            elif key.data is not self._wake and not isinstance(key.data, int):
                for connection in self.control.accept_all(now):
                    self._hear(connection, now)
        if not self.subreaper:
            self._look_for_exits()
        if now >= self.nursery.due:
            self._replace_zygote("did not answer in time")
        if now >= life.next_due(self.table) or lag > life.LAG_S:
            self._judge(now, lag)
        self.control.expire(now)
        self.notifier.beat(now)
        self._hand_over()
        if self.changed:
            self._write_state(now)

    def step(self, event: Any) -> None:
        """One event, and what follows from it."""
        self.table, actions = life.step(self.table, event, time.monotonic())
        self.changed = True
        for action in actions:
            _DO[type(action)](self, action)

    def _judge(self, now: float, lag: float) -> None:
        asleep_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        if asleep_s - self.asleep_s > SUSPENDED_S:
            self.note("warning", "", f"VM was suspended {asleep_s - self.asleep_s:.0f} s")
            self.asleep_s = asleep_s
        if lag > life.LAG_S:
            self.note("warning", "", f"the supervisor did not run for {lag:.0f} s; every limit is moved by that")
        late = life.overdue(self.table, now)
        stalled = frozenset(one.row.name for one in late if one.doubted and self.nursery.is_stalled(one.row.name, one.pid))
        occupied = frozenset(one.row.name for one in late if one.pid is None and self.nursery.is_occupied(one.row.name))
        self.step(e.Tick(lag, stalled, occupied))

    def _poll_due(self, now: float) -> float:
        return now + _POLL_S if any(descriptor is None for descriptor in self.pidfds.values()) else life.NEVER

    # what is heard
    def _worker_of(self, pid: int) -> str | None:
        return next((name for name, one in self.table.lives.items() if one.pid == pid), None)

    def _hear(self, connection: channel.Connection, now: float) -> None:
        for message in self.control.read(connection):
            try:
                _HEAR[message["type"]](self, connection, message)
            except (TypeError, ValueError, KeyError, OverflowError):  # a field that is missing or of another type
                self.control.refused += 1

    def _on_hello(self, connection: channel.Connection, message: dict[str, Any]) -> None:
        name = str(connection.worker)
        if message["build"] == self.build and self.control.of(name) is None and self.table.lives[name].state == life.STARTING:
            connection.greeted = True
            self.step(e.Hello(name, connection.peer.pid, self.nursery.guard(name)))

    def _on_list(self, connection: channel.Connection, message: dict[str, Any]) -> None:
        connection.send(control.pack("table", **self.payload(time.monotonic())))

    def _on_restart(self, connection: channel.Connection, message: dict[str, Any]) -> None:
        name = str(message["name"])
        state = self.table.lives[name].state if name in self.table.lives else "unknown"
        refused = {"unknown": "no such worker", life.DONE: "has done its work for this boot", life.IDLE: "is not wanted", life.OFF: "is off"}
        if state not in refused:
            self.note("info", name, "restart asked for")
            self.step(e.Restart(name))
        connection.send(control.pack("answer", ok=state not in refused, text=refused.get(state, "restarting")))

    def _on_stop(self, connection: channel.Connection, message: dict[str, Any]) -> None:
        connection.send(control.pack("answer", ok=True, text="stopping"))
        self.step(e.End(0))

    def _on_reload(self, connection: channel.Connection, message: dict[str, Any]) -> None:
        self._reload()
        connection.send(control.pack("answer", ok=True, text="reloaded"))

    def _hear_zygote(self) -> None:
        for answer in self.nursery.answers():
            kind, name = answer["type"], str(answer.get("name"))
            if kind == "forked":
                self.ticks[answer["pid"]] = processes.start_ticks(answer["pid"])
                if not self.subreaper:
                    self._watch(answer["pid"])
                self.step(e.Forked(name, answer["run"], answer["pid"]))
            elif kind == "failed":
                self.step(e.StartFailed(name, answer["run"], answer["reason"], random.random()))
            elif kind == "upgrade":
                self.note("info", "", "another build is installed; the agent starts anew as soon as no worker holds a lease")
                self.step(e.Upgrade())

    def _replace_zygote(self, reason: str) -> None:
        self.journal.write("warning", "", f"zygote {self.nursery.pid} {reason}; a new one is started")
        if self.nursery.channel is not None:
            self.selector.unregister(self.nursery.channel)
            self.nursery.channel.close()
        lost = self.nursery.lose_zygote()
        if self.table.end_by == life.NEVER:
            self._exec_zygote(time.monotonic())
        for name, run in lost:
            self.step(e.StartFailed(name, run, f"the zygote {reason}", random.random()))

    # signals and exits
    def _take_signals(self) -> None:
        numbers = set(self._wake.recv(512))
        if signal.SIGCHLD in numbers:
            self._reap()
        if signal.SIGHUP in numbers:
            self._reload()
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self.journal.write("info", "", "stopping; operations go on")
            self.notifier.send("STOPPING=1")
            self.step(e.End(0))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._bury(pid, -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))

    def _bury(self, pid: int, status: int) -> None:
        """A child ended: the zygote, a worker, or a stranger's orphan, which nobody counts."""
        self.ticks.pop(pid, None)
        owner = next((name for name, one in self.table.lives.items() if pid == one.pid or pid in one.ghosts), None)
        if pid == self.nursery.pid:
            self._replace_zygote(f"ended ({status})")
        elif owner is not None:
            connection = self.control.of(owner)
            if connection is not None and connection.peer.pid == pid:
                self._hear(connection, time.monotonic())  # its last words, such as `done`
            self.control.forget(pid)
            if self.nursery.is_occupied(owner):
                self.nursery.kill(owner, None)
            self.step(e.Exited(owner, pid, status, self.nursery.is_occupied(owner), random.random()))

    def _watch(self, pid: int) -> None:
        self.pidfds[pid] = descriptor = processes.open_pidfd(pid)
        if descriptor is not None:
            self.selector.register(descriptor, selectors.EVENT_READ, descriptor)

    def _look_for_exits(self) -> None:
        for pid, descriptor in list(self.pidfds.items()):
            if not processes.is_alive(pid, self.ticks.get(pid)):
                if descriptor is not None:
                    self.selector.unregister(descriptor)
                    os.close(descriptor)
                del self.pidfds[pid]
                self._bury(pid, -signal.SIGKILL)

    # what is done
    def _do_start(self, action: e.Start) -> None:
        reason = self.nursery.order(action, time.monotonic())
        if reason is not None:
            self.step(e.StartFailed(action.name, action.run, reason, random.random()))

    def _do_open(self, action: e.Open) -> None:
        self._write_state(time.monotonic())  # admission to the bus reads the pid there
        self.nursery.open_gate(action.name)

    def _do_configure(self, action: e.Configure, descriptors: tuple[int, ...] = ()) -> None:
        connection = self.control.of(action.name)
        if connection is not None:
            values, numbers = dict(self.settings.by_worker.get(action.name, {})), list(self.table.lives[action.name].numbers)
            packet = control.pack("configure", configuration=values, numbers=numbers, verbose=self.settings.verbose)
            connection.deliver(packet, descriptors)

    def _do_say_stop(self, action: e.SayStop) -> None:
        connection = self.control.of(action.name)
        if connection is not None:
            connection.deliver(control.pack("stop"))

    def _do_take_stack(self, action: e.TakeStack) -> None:
        pid = self.table.lives[action.name].pid
        if pid is not None:
            spawn.signal_to(pid, signal.SIGUSR1)

    def _do_kill(self, action: e.Kill) -> None:
        stack = control.clean(self.nursery.stack(action.name).replace("\n", "\t").replace("\t", "|")).replace("|", "\n")
        if stack.strip() and action.name not in self.stacks:
            self.stacks[action.name] = str(self.paths.hang_folder / f"{action.name}.hang")
            self.pending_stacks.append(control.pack("stack", worker=action.name, text=stack[-8000:]))
        self.nursery.kill(action.name, self.table.lives[action.name].pid)

    def _do_note(self, action: e.Note) -> None:
        self.note(action.level, action.name, action.text)

    def _do_leave(self, action: e.Leave) -> None:
        self.status = action.status

    def note(self, level: str, name: str, text: str) -> None:
        """A line in the log; about the agent as a whole it is shown to operators as well."""
        self.journal.write(level, name, text)
        if not name and level != "info":
            self.notes.append(text)

    def _reload(self) -> None:
        """SIGHUP: configuration and log anew; the one time when the disk is touched."""
        self.settings = self.read_again()
        self.journal.verbose = self.settings.verbose
        log = open_log(self.paths.log)
        for descriptor in (1, 2, self.journal.log):
            os.dup2(log, descriptor, inheritable=descriptor < 3)
        os.close(log)
        for finding in self.settings.findings:
            self.journal.write("warning", "", finding)
        for name in self.table.lives:
            self._do_configure(e.Configure(name), (self.journal.log,))
        self.journal.write("info", "", "configuration and log file reopened")
        self.step(e.Switched(self.settings.off))

    # what is shown
    def _hand_over(self) -> None:
        """Our lines and stacks to the worker that writes them."""
        connection = self.control.of(LOG_WORKER) if LOG_WORKER in self.table.lives else None
        if connection is not None and self.table.lives[LOG_WORKER].state == life.READY:
            while self.pending_stacks and connection.send(self.pending_stacks[0]):
                self.pending_stacks.popleft()
            self.journal.flush(connection.send)

    def _identity(self) -> dict[str, str]:
        return {"build": self.build, "boot_id": self.boot_id, "vm_id": self.vm_id}

    def payload(self, now: float) -> dict[str, Any]:
        """The table for `list` and for the state file (protocol/statefile.py)."""
        notes = [*self.notes, *([f"{self.control.refused} control messages or connections refused"] if self.control.refused else [])]
        zygote = {"pid": self.nursery.pid, "start_ticks": self.ticks.get(self.nursery.pid)}
        return {
            "schema": 1, "agent_version": waagent.__version__, **self._identity(), "pid": os.getpid(), "start_ticks": _own_ticks(),
            "started_at": self.started_at, "beat_at": now, "source": "supervisor", "zygote": zygote, "missing": self.missing,
            "cgroups": self.nursery.tree.description, "notes": notes, "workers": [self._row(one) for one in self.table.lives.values()],
        }  # fmt: skip

    def _row(self, one: life.Life) -> dict[str, Any]:
        guard, waiting = one.guard or {}, one.state in (life.BACKOFF, life.PARKED)
        return {
            "name": one.row.name, "kind": one.row.kind, "state": one.state, "since": one.since, "pid": one.pid,
            "start_ticks": self.ticks.get(one.pid or 0), "restarts": one.restarts, "last_exit": one.last_exit, "reason": one.reason,
            "next_try_at": one.due if waiting and one.due < life.NEVER else None, "beat_at": one.beat_at, "doing": one.result or one.doing,
            "uid": guard.get("uid"), "caps": guard.get("caps", []), "fence": guard.get("fence", ""), "facts": dict(one.facts or {}),
            "result": one.result, "stack": self.stacks.get(one.row.name, ""),
            "waits": [name for name in one.row.after if name in self.table.lives and self.table.lives[name].state != life.DONE],
        }  # fmt: skip

    def _write_state(self, now: float) -> None:
        self.changed = False
        try:
            self.state.write(self.payload(now))
        except (OSError, statefile.StateError) as error:
            self.journal.write("error", "", f"the state file cannot be written: {error}")
        counts = [one.state for one in self.table.lives.values()]
        self.notifier.say_status(", ".join(f"{counts.count(state)} {state}" for state in sorted(set(counts))))

    def _leave(self) -> int:
        """The end: no worker, no zygote, no socket."""
        self.journal.write_directly()
        spawn.signal_to(self.nursery.pid, signal.SIGKILL)
        self.nursery.tree.empty(deadline_s=EMPTY_S)
        self._write_state(time.monotonic())
        self.paths.control_socket.unlink(missing_ok=True)
        return self.status or 0


_HEAR: dict[str, Callable[[Supervisor, channel.Connection, dict[str, Any]], None]] = {
    "hello":     Supervisor._on_hello,
    "ready":     lambda it, who, said: it.step(e.Ready(str(who.worker), who.peer.pid)),
    "heartbeat": lambda it, who, said: it.step(
        e.Beat(str(who.worker), who.peer.pid, str(said["doing"]), int(said["progress"]), dict(said.get("facts") or {}))
    ),
    "busy":      lambda it, who, said: it.step(
        e.Busy(str(who.worker), who.peer.pid, float(said["seconds"]), str(said["reason"]), int(said["progress"]))
    ),
    "done":      lambda it, who, said: it.step(e.Done(str(who.worker), who.peer.pid, str(said["summary"])[:200])),
    "want":      lambda it, who, said: it.step(
        e.Wanted(str(who.worker), str(said["name"]), tuple(int(number) for number in said.get("numbers") or ())[:64])
    ),
    "unwant":    lambda it, who, said: it.step(e.Unwanted(str(who.worker), str(said["name"]))),
    "list":      Supervisor._on_list,
    "restart":   Supervisor._on_restart,
    "stop":      Supervisor._on_stop,
    "reload":    Supervisor._on_reload,
}  # fmt: skip

_DO: dict[type, Callable[[Supervisor, Any], None]] = {
    e.Start: Supervisor._do_start, e.Open: Supervisor._do_open, e.Configure: Supervisor._do_configure, e.SayStop: Supervisor._do_say_stop,
    e.Abandon: lambda it, action: it.nursery.close_gate(action.name), e.TakeStack: Supervisor._do_take_stack, e.Kill: Supervisor._do_kill,
    e.Note: Supervisor._do_note, e.Leave: Supervisor._do_leave,
}  # fmt: skip


def _signals_to_socket() -> socket.socket:
    """From now on signals arrive as bytes on a socket, and interrupt nothing."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return ours


def _read_before(state: int) -> dict[str, Any]:
    try:
        return statefile.read_state(state)
    except (statefile.StateError, ValueError):
        return {}  # the first supervisor of this boot


def _is_same(before: Mapping[str, Any], identity: Mapping[str, str]) -> bool:
    return all(before.get(key) == value for key, value in identity.items())


def _vm_id(path: Path) -> str:
    """A name for this VM that may be read by everyone; empty where the firmware gives none."""
    try:
        return hashlib.sha256(path.read_bytes().strip().lower()).hexdigest()[:16]
    except OSError:
        return ""


def _bus_group() -> int:
    return spawn.group_of(BUS_GROUP)


def _own_ticks() -> int | None:
    return processes.start_ticks(os.getpid())
