"""Births and deaths of processes: the zygote's client, gates, each worker's place in the cgroup tree, and its end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

import waagent
from waagent.distro import cgroups, children, machine, processes
from waagent.protocol import control
from waagent.supervisor import events as e
from waagent.supervisor.roster import Row
from waagent.supervisor.zygote import CHANNEL

ANSWER_S = 2.0  # for an order
UP_S = 20.0  # for the imports, on a disk that has just been booted from
EMPTY_S = 1.0  # for killed processes to be gone
_STACK_BYTES = 16 * 1024
PACKAGE = Path(waagent.__file__).parent


class Switches(NamedTuple):
    """What tests turn off, and where a worker's code is."""

    without: frozenset[str] = frozenset()
    """Of subreaper, cgroups, landlock, psi, systemd."""
    entry: str = "waagent.workers.runtime:run"
    python_path: tuple[str, ...] = ()
    tree: str = "waagent"
    modules: tuple[str, ...] = ()
    """What the zygote loads beforehand, for its workers to share."""


class Nursery:
    """Invariant: a gate opens only by `open_gate`; whoever waits behind a closed one exits."""

    def __init__(
        self, rows: tuple[Row, ...], root: str, switches: Switches, build: str, log: int, listeners: dict[str, socket.socket]
    ) -> None:
        self._root, self._switches, self.build, self.log, self._listeners = root, switches, build, log, listeners
        enabled = "cgroups" not in switches.without
        self.tree = cgroups.worker_tree(enabled=enabled, name=switches.tree)
        self._left = cgroups.worker_tree(enabled=enabled, name=f"{switches.tree}-left")
        self._rows = {row.name: row for row in rows}
        self.leaves: dict[str, cgroups.Leaf] = {}
        self._gates: dict[str, tuple[socket.socket, int]] = {}  # and the memfd that takes the stack
        self._asked: dict[str, tuple[int, float]] = {}
        self.pid, self.due = 0, float("inf")
        self.channel: socket.socket | None = None

    def make_places(self) -> None:
        """Cgroup leaves and limits of all workers; ours first."""
        self.tree.leaf("supervisor").join()
        self._left.leaf("daemons")
        for name, row in self._rows.items():
            self.leaves[name] = self.tree.leaf(f"w-{name}", cgroups.Limits(row.memory_mib, row.pids))
            self.tree.leaf(f"w-{name}/tools")

    def exec_zygote(self, now: float) -> socket.socket:
        """Start a zygote that inherits its socketpair and the log, nothing else; our end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = (str(PACKAGE), self.build, os.getpid(), self._switches.entry, self._switches.modules)
        path = [str(PACKAGE.parent), *self._switches.python_path]
        code = f"import sys; sys.path += {path!r}; from waagent.supervisor.zygote import main; main(*{arguments!r})"
        descriptors = {1: self.log, 2: self.log, CHANNEL: theirs.fileno()}
        self.pid = children.exec_alone([sys.executable, "-I", "-c", code], descriptors)
        theirs.close()
        ours.setblocking(False)
        self.channel, self.due = ours, now + UP_S
        return ours

    def order(self, action: e.Start, now: float) -> str | None:
        """Ask the zygote for a worker; why that failed, or None."""
        name, row = action.name, self._rows[action.name]
        self.close_gate(name)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._gates[name] = ours, os.memfd_create(f"stack-{name}", os.MFD_CLOEXEC)
        packet = control.pack(
            "start", name=name, run=action.run, as_root=action.as_root, row=row._asdict(), build=self.build, root=self._root,
            supervisor_pid=os.getpid(), without=list(self._switches.without), limited="memory" in self.tree.description,
            procs=list(map(str, self.leaves[name].procs_files)), outside=list(map(str, self._left.place("daemons").procs_files)),
            place=list(map(str, self.tree.place(f"w-{name}/tools").procs_files)),
        )  # fmt: skip
        given = (theirs.fileno(), self._gates[name][1], self.log, *([self._listeners[name].fileno()] if row.serves else []))
        sent = False
        with theirs, contextlib.suppress(OSError):
            sent = self.channel is not None and control.send(self.channel, packet, given)
        if sent:
            self._asked[name] = (action.run, now)
            self.due = min(self.due, now + ANSWER_S)
        return None if sent else "the zygote takes no orders"

    def answers(self) -> list[dict[str, Any]]:
        """What the zygote said; an empty packet or an error is its end, which its exit tells as well."""
        said: list[dict[str, Any]] = []
        with contextlib.suppress(OSError):  # nothing more for now
            while self.channel is not None and (packet := self.channel.recv(control.PACKET_LIMIT_BYTES)):
                said.append(control.unpack(packet))
        for message in said:
            self._asked.pop(str(message.get("name")), None)
        self.due = min((at + ANSWER_S for _, at in self._asked.values()), default=float("inf"))
        return said

    def lose_zygote(self) -> list[tuple[str, int]]:
        """Kill what is left of it; the starts that it has not answered."""
        processes.signal_all([self.pid], signal.SIGKILL)
        self.channel, self.due = None, float("inf")
        lost, self._asked = [(name, run) for name, (run, _) in self._asked.items()], {}
        return lost

    def open_gate(self, name: str) -> None:
        with contextlib.suppress(OSError):  # it is dead already; its exit says so
            self._gates[name][0].send(b"open", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close_gate(self, name: str) -> None:
        """Whoever waits behind it exits; forget the last run's stack, too."""
        if name in self._gates:
            gate, stack = self._gates.pop(name)
            gate.close()
            os.close(stack)

    def guard(self, name: str) -> dict[str, Any]:
        """What the child said about its fence, before it ran its own code."""
        with contextlib.suppress(OSError, KeyError, control.ControlError):
            return control.unpack(self._gates[name][0].recv(control.FOREIGN_LIMIT_BYTES, socket.MSG_DONTWAIT))
        return {}

    def stack(self, name: str) -> str:
        """The stack that a hung worker wrote; empty when it could not."""
        return os.pread(self._gates[name][1], _STACK_BYTES, 0).decode("utf-8", "replace") if name in self._gates else ""

    def kill(self, name: str, pid: int | None) -> None:
        """SIGKILL for all that lives in the worker's place; a walk where there is no cgroup."""
        if pid is not None and not self.leaves[name].procs_files:
            processes.kill_tree(pid, deadline_s=0.2)
        elif pid is not None:
            processes.signal_all([pid], signal.SIGKILL)
        if self.is_occupied(name):
            self.leaves[name].kill()

    def is_occupied(self, name: str) -> bool:
        return not self.leaves[name].is_empty()

    def is_stalled(self, name: str, pid: int | None) -> bool:
        return machine.is_stalled({*self.leaves[name].pids(), pid or 0}, psi="psi" not in self._switches.without)

    def leave(self) -> None:
        """The end of the zygote, of all that lives in our places, and of the places as far as they are empty."""
        processes.signal_all([self.pid], signal.SIGKILL)
        for file in self.tree.place("supervisor").procs_files:
            with contextlib.suppress(OSError):  # a v2 cgroup that hands controllers down takes no process: init removes it
                (file.parents[2] / "cgroup.procs").write_text("0")
        self.tree.empty(deadline_s=EMPTY_S)
        self.tree.remove()
        self._left.remove()
