"""The supervisor: one thread that turns what happens into events of `life`, and carries out what
`life` says.

Before READY it reads and writes what it needs; afterwards it touches no disk (SIGHUP apart): all it
does is read sockets, write to `/run/waagent/state` in place, and speak to the kernel.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import waagent
from waagent.distro import (
    children,
    clock,
    files,
    locks,
    machine,
    our_python,
    processes,
    sockets,
    users,
)
from waagent.distro.cgroups import trees
from waagent.distro.fences import prctl
from waagent.distro.paths import Paths
from waagent.protocol import control, state_table
from waagent.protocol.configuration.supervisor_settings import Settings, take_settings
from waagent.supervisor import events as e
from waagent.supervisor import journal, sd_notify, transitions, zygote_client
from waagent.supervisor.build_id import build_id
from waagent.supervisor.control_server import Channel, Connection
from waagent.supervisor.poll import Watch
from waagent.supervisor.roster import BUS_GROUP, ROSTER, Row
from waagent.supervisor.worker_cgroups import Places

LOG_WORKER = "environment_monitor"  # writes our lines and the stacks of hung workers
SUSPENDED_S = 2.0  # BOOTTIME runs ahead of MONOTONIC while the VM sleeps
# heartbeats are written with the next event after that; whatever else happens is written at once
BEATS_S = 4.0
EXIT_POLL_S = 0.2  # without a subreaper workers are init's children, and their exits are looked for
_KEPT_NOTES = 8


def main() -> int:
    """The supervisor of this machine: ROOT SETTINGS MAIN_FILE VERBOSE WITHOUT...

    SETTINGS is the descriptor of a file with its settings; MAIN_FILE and VERBOSE are what
    configuration_reader needs to write them anew.
    """
    root, settings, main_file, verbose, *without = sys.argv[1:]
    prctl.set_name("waagent")
    reader = our_python.argv(
        "waagent.supervisor.commands.configuration_reader",
        root,
        main_file,
        verbose,
        title="configuration reader",
    )
    modules = tuple(f"waagent.workers.{row.name}.main" for row in ROSTER if not row.is_brief)
    switches = zygote_client.Switches(
        frozenset(without), tree=trees.tree_name(root), modules=modules
    )
    return supervise(Paths(root), ROSTER, take_settings(int(settings)), reader, switches)


def supervise(
    paths: Paths,
    rows: tuple[Row, ...],
    settings: Settings,
    reader: list[str],
    switches: zygote_client.Switches,
) -> int:
    """Run ``rows`` until SIGTERM (0), an upgrade (75) or an error (1); a second supervisor ends at
    once (1).
    """
    for folder in (paths.run, paths.locks, paths.bus):
        files.make_folder(folder, 0o755)
    try:
        locks.take_lock(paths.locks / "supervisor")
    except locks.Held as error:
        print(f"waagent: {error}", file=sys.stderr)
        return 1
    log = files.open_log(paths.log)
    try:
        return Supervisor(paths, rows, settings, reader, switches, log).run()
    # the outermost loop of this process: the workers die with us, and init starts us again
    except Exception:
        import traceback  # 1 MiB for our last words only

        os.write(log, traceback.format_exc().encode())
        return 1


class Supervisor:
    """What is kept between two turns. Invariant: ``table`` changes only by `life.step`, whose
    actions are carried out at once.
    """

    def __init__(
        self,
        paths: Paths,
        rows: tuple[Row, ...],
        settings: Settings,
        reader: list[str],
        switches: zygote_client.Switches,
        log: int,
    ) -> None:
        """Everything that needs the disk, and the end of what a dead supervisor left."""
        children.redirect_standard(log)
        self.subreaper = "subreaper" not in switches.without and prctl.set_child_subreaper()
        switches = (
            switches
            if self.subreaper
            else switches._replace(without=switches.without | {"subreaper"})
        )
        self.paths, self.settings, self.reader = paths, settings, reader
        self.reading = 0, -1  # pid of the reader, and the memory file it writes to
        self.journal = journal.Journal(
            log, sockets.connect_datagram(paths.under("/run/systemd/journal/socket"))
        )
        self.notifier = sd_notify.Notifier(os.environ if "systemd" not in switches.without else {})
        self.started_at, self.asleep_s = time.monotonic(), machine.asleep_s()
        self.identity = {
            "build": build_id(zygote_client.PACKAGE),
            "boot_id": processes.boot_id(),
            "vm_id": machine.vm_id(paths.root),
        }
        group = users.gid_of(*BUS_GROUP)
        listeners = {
            row.name: sockets.listen(paths.bus / row.name, 0o660, group, socket.SOCK_STREAM)
            for row in rows
            if row.serves
        }
        self.places = Places(switches.tree, switches.without)
        self.nursery = zygote_client.Nursery(
            rows, str(paths.root), switches, self.identity["build"], log, listeners, self.places
        )
        self.notes: deque[str] = deque(maxlen=_KEPT_NOTES)
        self.stacks: dict[str, str] = {}
        self.ticks: dict[int, int | None] = {os.getpid(): processes.start_ticks(os.getpid())}
        self.status: int | None = None
        self.write_at = transitions.NEVER
        self.state = state_table.StateWriter(
            os.open(paths.state, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        )
        before = self.state.before
        self.watch = Watch()
        self.signals = sockets.receive_signals(
            (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        )
        self.watch.add(self.signals)
        self._end_remains(before)
        self.places.make({row.name: (row.memory_mib, row.pids, row.tools_mib) for row in rows})
        self._exec_zygote()
        rows_before = (
            before.get("workers", ())
            if all(before.get(key) == value for key, value in self.identity.items())
            else ()
        )
        done = {
            row["name"]: str(row["result"])
            for row in rows_before
            if row["state"] == transitions.DONE
        }
        facts = {row["name"]: dict(row["facts"]) for row in rows_before}
        self.table = transitions.begin(rows, done, settings.off, facts)
        self.control = Channel(
            sockets.listen(paths.control_socket, 0o666), self.watch, self._worker_of
        )
        self.missing = machine.protect_supervisor(switches.without, self.places.description)

    def _end_remains(self, before: Mapping[str, Any]) -> None:
        """Operations apart, nothing of the last supervisor stays: what its state file names, and
        what lives in our leaves.
        """
        if before.get("boot_id") == self.identity["boot_id"]:
            children.kill_recorded(
                (row["pid"], row["start_ticks"]) for row in (*before["workers"], before["zygote"])
            )
        if left := self.places.clear():
            self.note(
                "warning",
                "",
                f"{len(left)} processes of the last supervisor cannot be killed: {left[:5]}",
            )

    # the loop
    def run(self) -> int:
        """Turn until there is nothing left to do; the exit status."""
        self._say_findings(
            f"waagent {waagent.__version__} supervises {len(self.table.lives)} workers"
            f" build={self.identity['build']}"
        )
        self.journal.direct = False
        self.notifier.send("READY=1")
        self.step(e.Tick(0.0, frozenset(), frozenset()))
        turns = clock.Turns(time.monotonic())
        while self.status is None:
            exits_due = transitions.NEVER if self.subreaper else turns.began + EXIT_POLL_S
            due = min(
                transitions.next_due(self.table),
                self.control.next_due(),
                self.nursery.due,
                self.notifier.due,
                exits_due,
            )
            ready = self.watch.wait(turns.pause_s(due, time.monotonic()))
            now = time.monotonic()
            self._turn(ready, now, turns.lag_s(now))
        return self._leave()

    def _turn(self, ready: Iterable[Any], now: float, lag: float) -> None:
        """All that was said is heard before any deadline is judged."""
        for source in ready:
            if source is self.control:
                for connection in self.control.accept_all(now):
                    self._hear(connection)
            elif isinstance(source, Connection):
                self._hear(source)
            elif source is self.nursery.channel:
                self._hear_zygote()
            elif source is self.signals:
                self._take_signals()
        self._look_for_exits()
        if now >= self.nursery.due and self.nursery.channel is None:
            self._exec_zygote()
        elif now >= self.nursery.due:
            self._replace_zygote("did not answer in time")
        if now >= transitions.next_due(self.table) or lag > transitions.LAG_S:
            self._judge(now, lag)
        self.control.expire(now)
        self.notifier.beat(now)
        self._hand_over()
        if time.monotonic() >= self.write_at:
            self._write_state()

    def step(self, event: Any) -> None:
        """One event, and what follows from it."""
        now = time.monotonic()
        self.table, actions = transitions.step(self.table, event, now)
        self.write_at = min(self.write_at, now + (BEATS_S if type(event) is e.Beat else 0.0))
        for action in actions:
            _DO[type(action)](self, action)

    def _judge(self, now: float, lag: float) -> None:
        slept_s = machine.asleep_s() - self.asleep_s
        if slept_s > SUSPENDED_S:
            self.note("warning", "", f"VM was suspended {slept_s:.0f} s")
            self.asleep_s += slept_s
        if lag > transitions.LAG_S:
            self.note(
                "warning",
                "",
                f"the supervisor did not run for {lag:.0f} s; every limit is moved by that",
            )
        late = transitions.overdue(self.table, now)
        stalled = frozenset(
            one.row.name
            for one in late
            if one.doubted and self.places.is_stalled(one.row.name, one.pid)
        )
        occupied = frozenset(
            one.row.name
            for one in late
            if one.pid is None and self.places.is_occupied(one.row.name)
        )
        self.step(e.Tick(lag, stalled, occupied))

    # what is heard
    def _worker_of(self, pid: int) -> str | None:
        return next((name for name, one in self.table.lives.items() if one.pid == pid), None)

    def _hear(self, connection: Connection) -> None:
        for message in self.control.read(connection):
            try:
                _HEAR[message["type"]](self, connection, message)
            # a field that is missing or of another type
            except (TypeError, ValueError, KeyError, OverflowError):
                self.control.refused += 1

    def _on_hello(self, connection: Connection, message: dict[str, Any]) -> None:
        name = str(connection.worker)
        if (
            message["build"] == self.identity["build"]
            and self.table.lives[name].state == transitions.STARTING
        ):
            connection.greeted = True
            self.step(e.Hello(name, connection.peer.pid, self.nursery.guard(name)))

    def _on_restart(self, connection: Connection, message: dict[str, Any]) -> None:
        name = str(message["name"])
        state = self.table.lives[name].state if name in self.table.lives else "unknown"
        refusals = {
            "unknown": "is no worker",
            transitions.DONE: "has done its work for this boot",
            transitions.IDLE: "is not wanted",
            transitions.OFF: "is off",
        }
        if state in refusals:
            connection.send(control.pack("refused", reason=f"{name} {refusals[state]}"))
            return
        self._obey(connection, lambda: self.step(e.Restart(name)), f"{name} is restarted")

    def _obey(self, connection: Connection, act: Callable[[], None], text: str) -> None:
        connection.send(control.pack("answer", text=text))
        act()

    def _hear_zygote(self) -> None:
        for answer in self.nursery.answers(time.monotonic()):
            name = str(answer.get("name"))
            if answer["type"] == "forked":
                self.ticks[answer["pid"]] = processes.start_ticks(answer["pid"])
                self.step(e.Forked(name, answer["run"], answer["pid"]))
            elif answer["type"] == "failed":
                self.step(e.StartFailed(name, answer["run"], answer["reason"], machine.chance()))
            elif answer["type"] == "upgrade":
                self.note(
                    "warning",
                    "",
                    "another build is installed; the agent starts anew when no worker holds a"
                    " lease",
                )
                self.step(e.Upgrade())

    # signals and exits
    def _take_signals(self) -> None:
        numbers = set(self.signals.recv(512))
        for pid, status in children.reap() if signal.SIGCHLD in numbers else ():
            self._bury(pid, status)
        if signal.SIGHUP in numbers:
            self._read_anew()
        if numbers & {signal.SIGTERM, signal.SIGINT}:
            self._end()

    def _look_for_exits(self) -> None:
        for pid in [
            one.pid
            for one in self.table.lives.values()
            if one.pid is not None and not self.subreaper
        ]:
            if not processes.is_alive(pid, self.ticks.get(pid)):
                self._bury(pid, -signal.SIGKILL)

    def _bury(self, pid: int, status: int) -> None:
        """A child ended: the zygote, a worker, or a stranger's orphan, which nobody counts."""
        name = self._worker_of(pid)
        self.ticks.pop(pid, None)
        if pid == self.nursery.pid:
            self._replace_zygote(f"ended ({status})")
        elif pid == self.reading[0]:
            self._reload(status)
        elif name is not None:
            connection = self.control.of(name)
            if connection is not None:
                self._hear(connection)  # its last words, such as `done`
            self.control.forget(pid)
            if self.places.is_occupied(name):
                self.places.kill(name, None)
            self.step(e.Exited(name, pid, status, self.places.is_occupied(name), machine.chance()))

    def _exec_zygote(self) -> None:
        try:
            self.watch.add(self.nursery.exec_zygote(time.monotonic()))
            self.ticks[self.nursery.pid] = processes.start_ticks(self.nursery.pid)
        except OSError as error:
            self._replace_zygote(f"cannot be started ({error.strerror})")

    def _replace_zygote(self, reason: str) -> None:
        self._hear_zygote()
        if self.nursery.channel is not None:
            self.watch.remove(self.nursery.channel)
            self.nursery.channel.close()
        pid, now = self.nursery.pid, time.monotonic()
        lost = self.nursery.lose_zygote(now)
        self.note(
            "warning",
            "",
            f"zygote {pid or ''} {reason}; a new one is started in {self.nursery.due - now:.1f} s",
        )
        for name, run in lost:
            self.step(e.StartFailed(name, run, f"the zygote {reason}", machine.chance()))

    # what is done
    def _start(self, action: e.Start) -> None:
        reason = self.nursery.order(action, time.monotonic())
        if reason is not None:
            self.step(e.StartFailed(action.name, action.run, reason, machine.chance()))

    def _open(self, action: e.Open) -> None:
        self._write_state()  # admission to the bus reads the pid there
        self.nursery.gates[action.name].open()

    def _tell(self, name: str, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
        connection = self.control.of(name)
        if connection is not None:
            connection.deliver(packet, descriptors)

    def _configure(self, name: str, descriptors: tuple[int, ...] = ()) -> None:
        values, numbers = (
            dict(self.settings.by_worker.get(name, {})),
            list(self.table.lives[name].numbers),
        )
        self._tell(
            name,
            control.pack(
                "configure", configuration=values, numbers=numbers, verbose=self.settings.verbose
            ),
            descriptors,
        )

    def _kill(self, action: e.Kill) -> None:
        if stack := "\n".join(control.clean(self.nursery.stack(action.name).splitlines())):
            self.stacks[action.name] = str(self.paths.hang_folder / f"{action.name}.hang")
            self.journal.keep_stack(action.name, stack)
        self.places.kill(action.name, self.table.lives[action.name].pid)

    def note(self, level: str, name: str, text: str) -> None:
        """A line in the log; what concerns the agent as a whole is shown to operators as well."""
        self.journal.write(level, name, text)
        if not name:
            self.notes.append(text)

    def _end(self) -> None:
        self.journal.write("info", "", "stopping; operations go on")
        self.notifier.send("STOPPING=1")
        self.step(e.End(0))

    def _read_anew(self) -> None:
        """SIGHUP: a process reads the configuration; its end brings it."""
        if self.reading[0]:
            # what that one reads may be old by now: nobody waits for it any more
            os.close(self.reading[1])
        self.reading = 0, -1
        try:
            self.reading = children.exec_into_memory(self.reader, self.journal.log)
        except OSError as error:
            self.note(
                "error", "", f"reload: no process for it: {error.strerror}: send SIGHUP again"
            )

    def _reload(self, status: int) -> None:
        """The configuration was read; the log anew, too: the one time when the disk is touched."""
        try:
            self.settings = take_settings(self.reading[1])
            files.reopen_log(self.paths.log, self.journal.log)
        except (OSError, ValueError) as error:
            self.note(
                "error",
                "",
                f"reload failed, what was before holds ({status}, {error}): see waagent"
                " -check-configuration",
            )
        self.reading = 0, -1
        for name in self.table.lives:
            self._configure(name, (self.journal.log,))
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
        connection, writer = self.control.of(LOG_WORKER), self.table.lives.get(LOG_WORKER)
        if (
            connection
            and writer
            and time.monotonic() - (writer.beat_at or 0.0) < writer.row.beat_s + 1
            and writer.state == transitions.READY
        ):
            self.journal.flush(connection.send)

    # what is shown
    def payload(self) -> dict[str, Any]:
        """The table for `list` and for the state file (protocol/statefile.py)."""
        refused = (
            [f"{self.control.refused} control messages or connections refused"]
            if self.control.refused
            else []
        )
        return {
            "schema": 1,
            "agent_version": waagent.__version__,
            **self.identity,
            "pid": os.getpid(),
            "start_ticks": self.ticks[os.getpid()],
            "started_at": self.started_at,
            "beat_at": time.monotonic(),
            "source": "supervisor",
            "missing": self.missing,
            "cgroups": self.places.description,
            "zygote": {"pid": self.nursery.pid, "start_ticks": self.ticks.get(self.nursery.pid)},
            "notes": [*self.notes, *refused],
            "workers": [self._row(one) for one in self.table.lives.values()],
        }

    def _row(self, one: transitions.Life) -> dict[str, Any]:
        same = {
            key: getattr(one, key)
            for key in (
                "state",
                "since",
                "pid",
                "restarts",
                "last_exit",
                "reason",
                "beat_at",
                "result",
            )
        }
        return {
            **same,
            "name": one.row.name,
            "kind": one.row.kind,
            "start_ticks": self.ticks.get(one.pid or 0),
            "doing": one.result or one.doing,
            "next_try_at": one.due
            if one.state in (transitions.BACKOFF, transitions.PARKED)
            and one.due < transitions.NEVER
            else None,
            "uid": one.guard.get("uid"),
            "caps": one.guard.get("caps", []),
            "fence": one.guard.get("fence", ""),
            "facts": dict(one.facts),
            "stack": self.stacks.get(one.row.name, ""),
            "waits": transitions.waits_for(self.table.lives, one.row),
        }

    def _write_state(self) -> None:
        self.write_at = transitions.NEVER
        try:
            self.state.write(self.payload())
        except (OSError, state_table.StateError) as error:
            self.journal.write("error", "", f"the state file cannot be written: {error}")
        states = [one.state for one in self.table.lives.values()]
        self.notifier.say_status(
            ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
        )

    def _leave(self) -> int:
        """The end: no worker, no zygote, no socket."""
        self.journal.write_directly()
        self.nursery.lose_zygote(time.monotonic())
        self.places.leave()
        self._write_state()
        self.paths.control_socket.unlink(missing_ok=True)
        return self.status or 0


def _of(
    kind: Callable[..., Any], **fields: Callable[[Any], Any]
) -> Callable[[Supervisor, Connection, dict[str, Any]], None]:
    """What turns a worker's message into the event ``kind``, each field made what it must be; a
    KeyError when one is missing.
    """
    return lambda it, who, said: it.step(
        kind(str(who.worker), who.peer.pid, *(make(said[name]) for name, make in fields.items()))
    )


_HEAR: dict[str, Callable[[Supervisor, Connection, dict[str, Any]], None]] = {
    "hello": Supervisor._on_hello,
    "ready": _of(e.Ready),
    "heartbeat": lambda it, who, said: _of(e.Beat, doing=str, progress=int, facts=dict)(
        it, who, {"facts": {}, **said}
    ),
    "busy": _of(e.Busy, seconds=float, reason=str, progress=int),
    "done": _of(e.Done, summary=str),
    "want": lambda it, who, said: it.step(
        e.Wanted(str(who.worker), str(said["name"]), tuple(map(int, said["numbers"] or ()))[:64])
    ),
    "unwant": lambda it, who, said: it.step(e.Unwanted(str(who.worker), str(said["name"]))),
    "list": lambda it, who, said: who.deliver(control.pack("table", **it.payload())),
    "restart": Supervisor._on_restart,
    "stop": lambda it, who, said: it._obey(who, it._end, "stopping"),
    "reload": lambda it, who, said: it._obey(
        who, it._read_anew, "configuration and log are read and opened again"
    ),
}

_DO: dict[type, Callable[[Supervisor, Any], None]] = {
    e.Start: Supervisor._start,
    e.Open: Supervisor._open,
    e.Abandon: lambda it, action: it.nursery.close_gate(action.name),
    e.Configure: lambda it, action: it._configure(action.name),
    e.SayStop: lambda it, action: it._tell(action.name, control.pack("stop")),
    e.TakeStack: lambda it, action: processes.signal_all(
        filter(None, [it.table.lives[action.name].pid]), signal.SIGUSR1
    ),
    e.Kill: Supervisor._kill,
    e.Note: lambda it, action: it.note(*action),
    e.Leave: lambda it, action: setattr(it, "status", action.status),
}
