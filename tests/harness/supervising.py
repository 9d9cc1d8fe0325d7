"""A supervisor that judges nobody, to run single workers for real: forked by the real zygote, behind
the real gate and fence, in a root of its own.

    with Supervising(tmp_path) as supervisor:
        supervisor.start("fabric_client", configuration={"OS.AllowHTTP": False}, serves=True)
        supervisor.wait_for("fabric_client", "ready")

A worker of the roster has the row of the roster: its uid, capabilities and folders. ``code`` is a
Python file with `main(worker)` that takes the place of `workers/<name>/main.py`; its worker runs as
root unless ``row`` says otherwise. The root must be short (/tmp/…): paths of Unix sockets end at
107 bytes. The log of all workers is ``<root>/var/log/waagent.log``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from waagent.distro import process_tree, run, sockets, users
from waagent.distro.fences import prctl
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.protocol.state_table import StateWriter
from waagent.supervisor import events, roster
from waagent.supervisor.roster import Row
from waagent.supervisor.worker_cgroups import WorkerCgroups
from waagent.supervisor.zygote.contract import build_id
from waagent.supervisor.zygote_client import PACKAGE, Switches, ZygoteClient

ANSWER_S = 60.0
CHECKOUT = Path(__file__).resolve().parents[2]
_ROOM_END = """

def run(name, start):
    from waagent.workers import runtime
    runtime.run(name, start, main)
"""


def a_row(name: str, **fields: Any) -> Row:
    """A worker of a test: root without capabilities unless said otherwise."""
    usual = {
        "kind": roster.RESIDENT,
        "account": roster.ROOT_ACCOUNT,
        "capabilities": (),
        "memory_mib": 96,
        "pids": 64,
        "nofile": 1024,
        "serves": False,
    }
    return Row(**{**usual, "name": name, **fields})


def row_of(name: str) -> Row:
    """The worker's row in the roster."""
    return next(row for row in roster.ROSTER if row.name == name)


class Forked:
    """A process that the zygote forked for us; like a Popen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # the process between the zygote and it has not ended yet
                assert process_tree.is_alive(self.pid), f"somebody else reaped {self.pid}"
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float = ANSWER_S) -> int:
        """Its exit status. Raises subprocess.TimeoutExpired."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"pid {self.pid}", timeout)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Supervising:
    """A supervisor that judges nobody. Invariant: a pid stands in the state file before its code
    runs.
    """

    def __init__(
        self, root: Path, *, beat_s: float = 10.0, shown: Callable[[str], None] | None = None
    ) -> None:
        """``shown`` is told how each worker ran."""
        self.paths, self.beat_s = Paths(root), beat_s
        self.build = build_id(PACKAGE)
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.processes: dict[str, Any] = {}
        self._shown = shown
        self._was_subreaper = run.is_child_subreaper()
        prctl.set_child_subreaper()
        root.chmod(0o755)
        for folder in (self.paths.bus, self.paths.locks, self.paths.log.parent, self._rooms):
            folder.mkdir(parents=True, exist_ok=True)
        self.log = os.open(self.paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._state = os.open(self.paths.state, os.O_RDWR | os.O_CREAT, 0o644)
        self._writer = StateWriter(self._state)
        self._listeners: dict[str, socket.socket] = {}
        self._zygotes: dict[str, ZygoteClient] = {}
        self._loaded: dict[str, tuple[object, ...]] = {}
        """By worker: what its zygote was started with."""
        self._forked: set[int] = set()
        self._orphans = threading.Lock()
        self._runs = 0
        self._told: dict[str, dict[str, Any]] = {}
        self._connections: dict[str, socket.socket] = {}
        self._changed = threading.Condition()
        self._running = threading.Event()
        self._running.set()
        self._is_open = True
        self._control = sockets.listen(self.paths.control_socket, 0o666, 0, socket.SOCK_SEQPACKET)
        self._record()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> Supervising:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._running.set()
        for name in list(self.processes):
            self.kill(name)
        self._thread.join()
        for name in list(self._zygotes):
            self._end_zygote(name)
        self._reap_orphans()
        prctl.set_child_subreaper(self._was_subreaper)
        for held in (self._control, *self._listeners.values(), *self._connections.values()):
            held.close()
        os.close(self.log)
        os.close(self._state)

    @property
    def _rooms(self) -> Path:
        return self.paths.root / "rooms"

    def bind(self, name: str) -> None:
        """Listen on the bus socket of ``name``, on which nobody serves until its start."""
        group = users.gid_of(*roster.BUS_GROUP)
        self._listeners[name] = sockets.listen(
            self.paths.bus / name, 0o660, group, socket.SOCK_STREAM
        )

    def start(
        self,
        name: str,
        *,
        configuration: Mapping[str, Any] | None = None,
        numbers: Sequence[int] = (),
        serves: bool = False,
        code: Path | None = None,
        row: Row | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Forked:
        """A new process of the worker ``name``. ``environment`` is what init gave the supervisor
        beside ours.
        """
        self._told[name] = {
            "configuration": dict(configuration or {}),
            "numbers": list(numbers),
            "verbose": True,
        }
        row = row or (a_row(name) if code else row_of(name))
        row = row._replace(serves=serves, beat_s=self.beat_s)
        zygote = self._zygote(row, code, environment or {})
        self._runs += 1
        with self._orphans:
            failure = zygote.order(events.Start(name, self._runs), time.monotonic())
            assert failure is None, failure
            process = self.processes[name] = Forked(self._pid_of_forked(zygote))
            self._forked.add(process.pid)
        self._record()
        zygote.open_gate(name)
        return process

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Kill the worker and reap it; its exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        if number != signal.SIGKILL:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        process.kill()
        return int(process.wait())

    def stack(self, name: str) -> str:
        """What the worker wrote at SIGUSR1."""
        return self._zygotes[name].stack(name)

    def tell(self, name: str, kind: str, descriptors: tuple[int, ...] = (), **fields: Any) -> None:
        """Send a message to the worker: configure, stop, log, stack."""
        control.send(self._connections[name], control.pack(kind, **fields), descriptors)

    def pause(self) -> None:
        """Read nothing, as when stopped."""
        self._running.clear()

    def resume(self) -> None:
        """Go on reading."""
        self._running.set()

    def said(self, name: str, kind: str = "") -> list[dict[str, Any]]:
        """What the worker has said, in order."""
        return [
            message
            for who, message in list(self.messages)
            if who == name and message["type"] == (kind or message["type"])
        ]

    def wait_for(
        self,
        name: str,
        kind: str,
        is_it: Callable[[dict[str, Any]], bool] = bool,
        deadline_s: float = 60.0,
    ) -> dict[str, Any]:
        """The first message of ``kind`` (for which ``is_it``), now or within the deadline;
        otherwise AssertionError with the log.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: any(is_it(message) for message in self.said(name, kind)), deadline_s
            )
        found = [message for message in self.said(name, kind) if is_it(message)]
        assert found, (
            f"no {kind} of {name} in {deadline_s} s; it said {self.said(name)[-5:]};"
            f" log:\n{self.log_text()[-4000:]}"
        )
        return found[0]

    def log_text(self) -> str:
        """The log of all workers."""
        return self.paths.log.read_text(errors="replace")

    def _record(self) -> None:
        rows = [
            {"name": name, "pid": process.pid, "state": "READY"}
            for name, process in self.processes.items()
        ]
        self._writer.write(
            {
                "schema": 1,
                "build": self.build,
                "pid": os.getpid(),
                "started_at": time.monotonic(),
                "workers": rows,
            }
        )

    def _zygote(self, row: Row, code: Path | None, environment: Mapping[str, str]) -> ZygoteClient:
        """The zygote for this row: one that has loaded a worker's code before it forks."""
        entry, module = Switches().entry, f"waagent.workers.{row.name}.main"
        if code is not None:
            text = code.read_text() + _ROOM_END
            module = f"room_{row.name}_{zlib.crc32(text.encode()):08x}"
            (self._rooms / f"{module}.py").write_text(text)
            entry = f"{module}:run"
        wanted = (row, module, tuple(sorted(environment.items())))
        if self._loaded.get(row.name) != wanted:
            self._end_zygote(row.name)
            switches = Switches(
                frozenset({"cgroups", "systemd"}),
                entry,
                (str(self._rooms),),
                modules=() if row.is_brief else (module,),
            )
            cgroups = WorkerCgroups((), switches.tree, psi=False)
            cgroups.make({row.name: (row.memory_mib, row.pids, row.tools_mib)})
            if row.name in self._listeners:
                self._listeners.pop(row.name).close()
            zygote = ZygoteClient((row,), self.paths, switches, self.build, self.log, cgroups)
            with _environment(environment):
                zygote.exec_zygote(time.monotonic())
            self._zygotes[row.name], self._loaded[row.name] = zygote, wanted
        return self._zygotes[row.name]

    def _end_zygote(self, name: str) -> None:
        if name in self._zygotes:
            pid = self._zygotes[name].pid
            self._zygotes.pop(name).lose_zygote(time.monotonic(), "is not needed")
            with contextlib.suppress(ChildProcessError):  # it had ended, as an orphan
                os.waitpid(pid, 0)

    def _pid_of_forked(self, zygote: ZygoteClient) -> int:
        until = time.monotonic() + ANSWER_S
        while time.monotonic() < until:
            for answer in zygote.answers(time.monotonic()):
                assert isinstance(answer, events.Forked), answer
                return answer.pid
            time.sleep(0.001)
        raise AssertionError(f"the zygote said nothing; log:\n{self.log_text()[-4000:]}")

    def _note_fence(self, name: str) -> None:
        guard = self._zygotes[name].guard(name)
        if self._shown is not None:
            self._shown(
                f"worker {name}: forked by the zygote, uid {guard['uid']},"
                f" capabilities {' '.join(guard['caps']) or 'none'}, fence {guard['fence']}"
            )

    def _reap_orphans(self) -> None:
        """As the supervisor does: what fell to us, the subreaper. What a test started itself is in
        our own session.
        """
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):
                for pid in set(map(int, (task / "children").read_text().split())) - self._forked:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    if fields[0] == "Z" and int(fields[3]) != os.getsid(0):
                        os.waitpid(pid, os.WNOHANG)

    def _work(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            while self._is_open:
                with self._orphans:
                    self._reap_orphans()
                for key, _ in selector.select(0.05):
                    self._running.wait()
                    if key.fileobj is self._control:
                        selector.register(self._control.accept()[0], selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket) and not self._read(key.fileobj):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()

    def _read(self, connection: socket.socket) -> bool:
        try:
            packet = connection.recv(control.PACKET_LIMIT_BYTES)
        except OSError:
            return False
        pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[
            0
        ]
        name = next(
            (name for name, process in list(self.processes.items()) if process.pid == pid), ""
        )
        if not packet or not name:
            return False
        message = control.unpack(packet)
        if message["type"] == "hello":
            self._note_fence(name)
            self._connections[name] = connection
            control.send(connection, control.pack("configure", **self._told[name]))
        with self._changed:
            self.messages.append((name, message))
            self._changed.notify_all()
        return True


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """The environment that init gave the supervisor, for what it starts meanwhile."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
