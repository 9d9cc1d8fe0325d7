"""Births and deaths of processes: the zygote's client, gates, each worker's place in the cgroup tree, and its end."""

from __future__ import annotations

import grp
import os
import pwd
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

import waagent
from waagent.distro import cgroups, processes
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.supervisor import events as e
from waagent.supervisor.roster import BUS_GROUP, Account, Row
from waagent.supervisor.zygote import CHANNEL

ANSWER_S = 2.0  # for an order
UP_S = 20.0  # for the imports, on a disk that has just been booted from
_STACK_BYTES = 16 * 1024
_DATA_SPARE_MIB = 64  # thread stacks count as data, though hardly any of it is touched
PACKAGE = Path(waagent.__file__).parent


class Switches(NamedTuple):
    """What tests turn off, and where a worker's code is."""

    without: frozenset[str] = frozenset()
    """Of subreaper, cgroups, landlock, psi, systemd."""
    entry: str = "waagent.workers.runtime:run"
    python_path: tuple[str, ...] = ()
    tree: str = "waagent"
    preload: str = ""


class Nursery:
    """Invariant: a gate opens only by `open_gate`; whoever waits behind a closed one exits."""

    def __init__(self, paths: Paths, rows: tuple[Row, ...], switches: Switches, build: str, log: int, listeners: dict[str, socket.socket]) -> None:
        self._paths, self._switches, self.build, self.log, self._listeners = paths, switches, build, log, listeners
        self.tree = cgroups.worker_tree(enabled="cgroups" not in switches.without, name=switches.tree)
        self._ids = {row.name: (number_of(row.account), group_of(row.account)) for row in rows}
        self._bus_group = group_of(BUS_GROUP)
        self._rows = {row.name: row for row in rows}
        self.leaves: dict[str, cgroups.Leaf] = {}
        self._gates: dict[str, socket.socket] = {}
        self._stacks: dict[str, int] = {}
        self._asked: dict[str, tuple[int, float]] = {}
        self.pid, self.up, self.due = 0, False, float("inf")
        self.channel: socket.socket | None = None

    def make_places(self) -> None:
        """Cgroup leaves and limits of all workers; ours first."""
        self.tree.leaf("supervisor", cgroups.Limits()).join()
        for name, row in self._rows.items():
            self.leaves[name] = self.tree.leaf(f"w-{name}", cgroups.Limits(row.memory_mib, row.pids))
            self.tree.leaf(f"w-{name}/tools", cgroups.Limits())

    def exec_zygote(self, now: float) -> socket.socket:
        """Start a zygote that inherits its socketpair and the log, nothing else; our end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        extra = [path for path in (str(PACKAGE.parent), *self._switches.python_path) if path]
        call = f"main({str(PACKAGE)!r}, {self.build!r}, {os.getpid()}, {self._switches.entry!r}, {self._switches.preload!r})"
        code = f"import sys; sys.path += {extra!r}; from waagent.supervisor.zygote import main; {call}"
        moves = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in ((self.log, 1), (self.log, 2), (theirs.fileno(), CHANNEL))]
        default = [signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE]
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
        self.pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-c", code], environment, file_actions=moves, setsigdef=default)
        theirs.close()
        ours.setblocking(False)
        self.channel, self.up, self.due = ours, False, now + UP_S
        return ours

    def order(self, action: e.Start, now: float) -> str | None:
        """Ask the zygote for a worker; why that failed, or None."""
        row, (uid, gid) = self._rows[action.name], self._ids[action.name]
        if action.as_root:
            uid = gid = 0
        self.close_gate(action.name)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack = self._stacks[action.name] = os.memfd_create(f"stack-{action.name}", os.MFD_CLOEXEC)
        limited = any(word in self.tree.description.split() for word in ("memory", "memory,"))
        packet = control.pack(
            "start", name=row.name, run=action.run, build=self.build, root=str(self._paths.root), supervisor_pid=os.getpid(),
            privilege=row.privilege, uid=uid, gid=gid, groups=[self._bus_group], capabilities=list(() if action.as_root else row.capabilities),
            nofile=row.nofile, pids=row.pids, data_mib=None if limited else row.memory_mib + _DATA_SPARE_MIB,
            procs=[str(file) for file in self.leaves[row.name].procs_files],
            place=[str(file) for file in self.tree.place(f"w-{row.name}/tools").procs_files], state=str(self._paths.state),
            lock=str(self._paths.locks / action.lock), beat_s=row.beat_s, writes=[str(self._paths.under(path)) for path in row.writes],
            readable=[sys.prefix, sys.base_prefix, str(PACKAGE), *(str((PACKAGE / room).resolve()) for room in ("workers", "protocol", "distro"))],
            landlock="landlock" not in self._switches.without, subreaper="subreaper" not in self._switches.without,
        )  # fmt: skip
        listener = [self._listeners[row.name].fileno()] if row.serves else []
        self._gates[row.name] = ours
        try:
            assert self.channel is not None
            sent = control.send(self.channel, packet, (theirs.fileno(), stack, self.log, *listener))
        except OSError:
            sent = False
        theirs.close()
        if not sent:
            return "the zygote takes no orders"
        self._asked[row.name] = (action.run, now)
        self.due = min(self.due, now + ANSWER_S)
        return None

    def answers(self) -> list[dict[str, Any]]:
        """What the zygote said; empty packets and errors are its end, which its exit tells as well."""
        said: list[dict[str, Any]] = []
        while self.channel is not None:
            try:
                packet = self.channel.recv(control.PACKET_LIMIT_BYTES)
            except OSError:  # nothing more, or it is gone
                break
            if not packet:
                break
            message = control.unpack(packet)
            self._asked.pop(str(message.get("name")), None)
            self.up = self.up or message["type"] == "up"
            self.due = min((at + ANSWER_S for _, at in self._asked.values()), default=float("inf"))
            said.append(message)
        return said

    def lose_zygote(self) -> list[tuple[str, int]]:
        """Kill what is left of it; the starts that it has not answered."""
        signal_to(self.pid, signal.SIGKILL)
        self.channel, self.up, self.due = None, False, float("inf")
        lost, self._asked = [(name, run) for name, (run, _) in self._asked.items()], {}
        return lost

    def open_gate(self, name: str) -> None:
        control_end = self._gates[name]
        try:
            control_end.send(b"open", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it is dead already; its exit says so

    def close_gate(self, name: str) -> None:
        """Whoever waits behind it exits; forget the last run's stack, too."""
        if name in self._gates:
            self._gates.pop(name).close()
        if name in self._stacks:
            os.close(self._stacks.pop(name))

    def guard(self, name: str) -> dict[str, Any]:
        """What the child said about its fence, before it ran its own code."""
        try:
            return control.unpack(self._gates[name].recv(control.FOREIGN_LIMIT_BYTES, socket.MSG_DONTWAIT))
        except (OSError, KeyError, control.ControlError):
            return {}

    def stack(self, name: str) -> str:
        """The stack that a hung worker wrote; empty when it could not."""
        descriptor = self._stacks.get(name)
        return os.pread(descriptor, _STACK_BYTES, 0).decode("utf-8", "replace") if descriptor is not None else ""

    def kill(self, name: str, pid: int | None) -> None:
        """SIGKILL for all that lives in the worker's place; a walk where there is no cgroup."""
        if pid is not None:
            signal_to(pid, signal.SIGKILL)
            if not self.leaves[name].procs_files:
                processes.kill_tree(pid, deadline_s=0.2)
        if self.is_occupied(name):
            self.leaves[name].kill()

    def is_occupied(self, name: str) -> bool:
        return not self.leaves[name].is_empty()

    def is_stalled(self, name: str, pid: int | None) -> bool:
        """Whether it waits for a disk, or everybody for memory."""
        pressure = processes.memory_pressure_full_avg10() if "psi" not in self._switches.without else None
        return (pressure or 0.0) > 20 or any(processes.state_letter(one) == "D" for one in {*self.leaves[name].pids(), pid or 0})


def signal_to(pid: int, number: int) -> None:
    """Send it; whoever is gone is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # its exit is on the way to us


def number_of(account: Account) -> int:
    """The uid of the account, or its fixed number where it does not exist. Reads files: before READY only."""
    try:
        return pwd.getpwnam(account.name).pw_uid
    except KeyError:
        return account.number


def group_of(account: Account) -> int:
    """The gid of the group of that name, or the account's number."""
    try:
        return grp.getgrnam(account.name).gr_gid
    except KeyError:
        return account.number

