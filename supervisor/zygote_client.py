"""The zygote's client, and the gates that new workers wait behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import waagent
from waagent.distro import children, our_python, processes
from waagent.protocol import control
from waagent.protocol.base.records import Record
from waagent.supervisor import events as e
from waagent.supervisor.roster import Row
from waagent.supervisor.start_gate import Gate
from waagent.supervisor.worker_cgroups import Places

CHANNEL = 3  # the zygote's descriptor of its socketpair
ANSWER_S = 2.0  # for an order
UP_S = 20.0  # for the imports, on a disk that has just been booted from
# one that lives shorter is followed after a pause, from the second on
SHORT_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 0.25, 60.0
NEVER = float("inf")
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


class Nursery:
    """Invariant: a gate opens only by its worker's `Open`; ``due`` is when the zygote must have
    answered, or is started again.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        root: str,
        switches: Switches,
        build: str,
        log: int,
        listeners: Mapping[str, socket.socket],
        places: Places,
    ) -> None:
        self._root, self._switches, self._build, self._log, self._listeners = (
            root,
            switches,
            build,
            log,
            listeners,
        )
        self._rows, self._places = {row.name: row for row in rows}, places
        self.gates: dict[str, Gate] = {}
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
            str(CHANNEL),
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
        gate = self.gates[action.name] = Gate(action.name)
        # all that they could open here
        peers = sum(
            other.nofile for other in self._rows.values() if row.serves and other is not row
        )
        packet = control.pack(
            "start",
            name=action.name,
            run=action.run,
            as_root=action.as_root,
            row=row._replace(nofile=row.nofile + peers)._asdict(),
            build=self._build,
            root=self._root,
            supervisor_pid=os.getpid(),
            without=list(self._switches.without),
            limited="memory" in self._places.description,
            **self._places.files(action.name),
        )
        given = (
            gate.theirs.fileno(),
            gate.memory,
            self._log,
            *([self._listeners[row.name].fileno()] if row.serves else []),
        )
        sent = False
        with contextlib.suppress(OSError):
            sent = self.channel is not None and control.send(self.channel, packet, given)
        gate.theirs.close()
        if sent:
            self._asked[action.name] = (action.run, now)
            self.due = min(self.due, now + ANSWER_S) if self._is_up else self.due
        return None if sent else "the zygote takes no orders"

    def answers(self, now: float) -> list[dict[str, Any]]:
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
            self._asked.pop(str(message.get("name")), None)
        if said and not self._is_up:
            self._is_up, self._asked = (
                True,
                {name: (run, now) for name, (run, _) in self._asked.items()},
            )
        if self._is_up:
            self.due = min((at + ANSWER_S for _, at in self._asked.values()), default=NEVER)
        return said

    def lose_zygote(self, now: float) -> list[tuple[str, int]]:
        """Kill what is left of it; the starts that it has not answered."""
        processes.signal_all(filter(None, [self.pid]), signal.SIGKILL)
        self._failures = self._failures + 1 if now < self._started + SHORT_S else 0
        pause_s = (
            min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures - 2, 16))
            if self._failures > 1
            else 0.0
        )
        self.channel, self.pid, self.due = None, 0, now + pause_s
        lost, self._asked = [(name, run) for name, (run, _) in self._asked.items()], {}
        return lost

    def close_gate(self, name: str) -> None:
        """Whoever waits behind it exits; forget the last run's stack, too."""
        if name in self.gates:
            self.gates.pop(name).close()

    def stack(self, name: str) -> str:
        """What a hung worker wrote; empty when it could not."""
        return self.gates[name].stack() if name in self.gates else ""

    def guard(self, name: str) -> dict[str, Any]:
        """What the child said about its fence, before it ran its own code."""
        with contextlib.suppress(KeyError, control.ControlError):
            return control.unpack(self.gates[name].told(control.FOREIGN_LIMIT_BYTES))
        return {}
