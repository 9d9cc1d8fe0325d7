"""The supervisor's end of the zygote: starts of workers, and the gates that they wait behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import waagent
from waagent.distro import children, our_python, process_tree, sockets, users
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.protocol.base.backoff import doubled_pause_s
from waagent.protocol.base.records import Record
from waagent.supervisor import events as e
from waagent.supervisor.roster import BUS_GROUP, Row
from waagent.supervisor.start_gate import Gate
from waagent.supervisor.states import NEVER
from waagent.supervisor.worker_cgroups import WorkerCgroups
from waagent.supervisor.zygote.contract import CHANNEL

if TYPE_CHECKING:
    from waagent.supervisor.events import Event

ANSWER_S = 2.0  # for an order
UP_S = 20.0  # for the imports, on a disk that has just been booted from
# one that lives shorter is followed after a pause, from the second on
SHORT_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 0.25, 60.0
PACKAGE = Path(waagent.__file__).parent


class Switches(Record):
    """What tests turn off, and where a worker's code is."""

    without: frozenset[str] = frozenset()
    """Of subreaper, cgroups, landlock, psi, systemd."""
    entry: str = "waagent.workers.runtime:run"
    python_path: tuple[str, ...] = ()
    tree: str = "waagent"
    modules: tuple[str, ...] = ()
    """What the zygote loads beforehand, for its workers to share."""


class ZygoteClient:
    """Holds what a worker is given at its start: gate, cgroup, the bus socket it listens on, bound
    once. Invariant: a gate opens only by its worker's `Open`; ``due`` is when the zygote must have
    answered, or is started again.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        paths: Paths,
        switches: Switches,
        build: str,
        log: int,
        cgroups: WorkerCgroups,
    ) -> None:
        self._rows, self._root = {row.name: row for row in rows}, str(paths.root)
        self._switches, self._build, self._log = switches, build, log
        self._cgroups = cgroups
        self._listeners = {row.name: _listen_for(row, paths) for row in rows}
        self._gates: dict[str, Gate] = {}
        self._asked: dict[str, tuple[int, float]] = {}
        self.pid, self.due, self._started, self._failures, self._is_up = 0, NEVER, 0.0, 0, False
        self.channel: socket.socket | None = None

    def exec_zygote(self, now: float) -> socket.socket:
        """Start a zygote that inherits its socketpair and the log, nothing else; our end. Raises
        OSError (no process left …).
        """
        self._started = now
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = our_python.argv(
            "waagent.supervisor.zygote.main",
            str(PACKAGE),
            self._build,
            str(os.getpid()),
            self._switches.entry,
            *self._switches.modules,
            title="zygote",
            path=self._switches.python_path,
        )
        with theirs:
            self.pid = children.exec_alone(
                argv, {1: self._log, 2: self._log, CHANNEL: theirs.fileno()}
            )
        ours.setblocking(False)
        self.channel, self.due, self._is_up = ours, now + UP_S, False
        return ours

    def order(self, action: e.Start, now: float) -> str | None:
        """Ask the zygote for a worker; why that failed, or None."""
        row = self._rows[action.name]
        self.close_gate(action.name)
        gate = self._gates[action.name] = Gate(action.name)
        # all that they could open here
        peers = [one.nofile for one in self._rows.values() if row.serves and one is not row]
        packet = control.pack(
            "start",
            name=action.name,
            run=action.run,
            row=row._replace(nofile=row.nofile + sum(peers))._asdict(),
            build=self._build,
            root=self._root,
            supervisor_pid=os.getpid(),
            without=list(self._switches.without),
            limited="memory" in self._cgroups.description,
            **self._cgroups.files(action.name),
        )
        listeners = [each.fileno() for each in self._listeners[row.name]]
        given = (gate.theirs.fileno(), gate.memory, self._log, *listeners)
        sent = False
        with contextlib.suppress(OSError):
            sent = self.channel is not None and control.send(self.channel, packet, given)
        gate.theirs.close()
        if sent:
            self._asked[action.name] = (action.run, now)
            self.due = min(self.due, now + ANSWER_S) if self._is_up else self.due
        return None if sent else "the zygote takes no orders"

    def answers(self, now: float) -> list[Event]:
        """What the zygote said; an empty packet or an error is its end, which its exit tells as
        well.
        """
        said: list[dict[str, Any]] = []
        with contextlib.suppress(OSError):  # nothing more for now
            while self.channel is not None and (
                packet := self.channel.recv(control.PACKET_LIMIT_BYTES)
            ):
                said.append(control.unpack(packet))
        for message in said:
            self._asked.pop(message.get("name", ""), None)
        if said and not self._is_up:
            self._is_up = True
            self._asked = {name: (run, now) for name, (run, _) in self._asked.items()}
        if self._is_up:
            self.due = min((at + ANSWER_S for _, at in self._asked.values()), default=NEVER)
        return [_event_of(message) for message in said if message["type"] != "up"]

    def lose_zygote(self, now: float, reason: str) -> list[e.StartFailed]:
        """Kill what is left of it; the starts that it has not answered failed for ``reason``."""
        process_tree.signal_all(filter(None, [self.pid]), signal.SIGKILL)
        if self.channel is not None:
            self.channel.close()
        self._failures = self._failures + 1 if now < self._started + SHORT_S else 0
        self.channel, self.pid, self.due = None, 0, now
        if self._failures > 1:
            self.due += doubled_pause_s(self._failures - 1, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        lost, self._asked = self._asked, {}
        return [e.StartFailed(name, run, f"the zygote {reason}") for name, (run, _) in lost.items()]

    def open_gate(self, name: str) -> None:
        """Let it through."""
        self._gates[name].open()

    def close_gate(self, name: str) -> None:
        """Whoever waits behind it exits; forget the last run's stack, too."""
        if name in self._gates:
            self._gates.pop(name).close()

    def stack(self, name: str) -> str:
        """What a hung worker wrote; empty when it could not."""
        return self._gates[name].stack() if name in self._gates else ""

    def guard(self, name: str) -> dict[str, Any]:
        """What the child said about its fence, before it ran its own code."""
        with contextlib.suppress(KeyError, control.ControlError):
            return control.unpack(self._gates[name].told(control.FOREIGN_LIMIT_BYTES))
        return {}


def _event_of(message: Mapping[str, Any]) -> Event:
    if message["type"] == "forked":
        return e.Forked(message["name"], message["run"], message["pid"])
    if message["type"] == "failed":
        return e.StartFailed(message["name"], message["run"], message["reason"])
    return e.Upgrade()


def _listen_for(row: Row, paths: Paths) -> list[socket.socket]:
    """The bus socket of one who serves, and the other one of the one that hands connections
    over.
    """
    group = users.gid_of(*BUS_GROUP)
    found: list[socket.socket] = []
    if row.serves:
        found.append(sockets.listen(paths.bus / row.name, 0o660, group, socket.SOCK_STREAM))
    if row.hands_over:
        found.append(sockets.listen(paths.bus / control.HANDOVER_SOCKET, 0o660, group))
    return found
