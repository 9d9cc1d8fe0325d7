"""A stand-in for the supervisor, to run single workers for real: control socket, state file, bus
sockets, gate, in a root of its own.

    with StandIn(tmp_path) as supervisor:
        supervisor.start("fabric_client", configuration={"OS.AllowHTTP": False}, serves=True)
        supervisor.wait_for("fabric_client", "ready")

``code`` is a Python file with `main(worker)` that takes the place of `workers/<name>/main.py`. The
root must be short (/tmp/…): paths of Unix sockets end at 107 bytes. The log of all workers is
``<root>/var/log/waagent.log``.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from waagent.distro import children
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.protocol.state_table import StateWriter
from waagent.protocol.worker_start import Birth

CHECKOUT = Path(__file__).resolve().parents[2]
_CHILD = """
import importlib.util, json, os, sys
gate, code, fields = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
os.read(gate, 1) or os._exit(1)
os.close(gate)
from waagent.protocol.worker_start import Birth
from waagent.workers import runtime
birth = Birth(**{**fields, "place": tuple(fields["place"])})
if code:
    spec = importlib.util.spec_from_file_location(f"waagent.workers.{birth.name}.main", code)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
runtime.run(birth.name, birth)
"""


class StandIn:
    """A supervisor that judges nobody. Invariant: a pid stands in the state file before its code
    runs.
    """

    def __init__(self, root: Path, *, beat_s: float = 10.0, build: str = "test") -> None:
        self.paths, self.beat_s, self.build = Paths(root), beat_s, build
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for folder in (self.paths.bus, self.paths.locks, self.paths.log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.log = os.open(self.paths.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._state = os.open(self.paths.state, os.O_RDWR | os.O_CREAT, 0o644)
        self._writer = StateWriter(self._state)
        self._listeners: dict[str, socket.socket] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._connections: dict[str, socket.socket] = {}
        self._changed = threading.Condition()
        self._running = threading.Event()
        self._running.set()
        self._is_open = True
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.bind(str(self.paths.control_socket))
        self._control.listen(32)
        self.stacks: dict[str, int] = {}
        self._record()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self._running.set()
        for name in list(self.processes):
            self.kill(name)
        self._thread.join()
        for held in (self._control, *self._listeners.values(), *self._connections.values()):
            held.close()
        os.close(self.log)
        os.close(self._state)

    def bind(self, name: str) -> socket.socket:
        """The listening bus socket of ``name``; it stays while its worker comes and goes."""
        if name not in self._listeners:
            listener = self._listeners[name] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.paths.bus / name))
            listener.listen(128)
        return self._listeners[name]

    def start(
        self,
        name: str,
        *,
        configuration: Mapping[str, Any] | None = None,
        numbers: Sequence[int] = (),
        serves: bool = False,
        code: Path | None = None,
        place: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """A new process of the worker ``name``; ``options`` (user, group, …) go to Popen."""
        self._told[name] = {
            "configuration": dict(configuration or {}),
            "numbers": list(numbers),
            "verbose": True,
        }
        listener = self.bind(name).fileno() if serves else None
        stack = self.stacks[name] = os.memfd_create(f"{name}.stack")
        state = os.open(self.paths.state, os.O_RDONLY)
        birth = Birth(
            name,
            str(self.paths.root),
            os.getpid(),
            self.build,
            listener,
            state,
            tuple(place),
            self.beat_s,
            stack,
        )
        gate, opener = os.pipe()
        passed = [number for number in (gate, listener, state, stack) if number is not None]
        process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(gate), str(code or ""), json.dumps(birth._asdict())],
            pass_fds=passed,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={
                **os.environ,
                **children.ALLOCATOR,
                "PYTHONPATH": str(CHECKOUT),
                **(environment or {}),
            },
            **options,
        )
        self.processes[name] = process
        self._record()
        os.write(opener, b"g")
        for descriptor in (gate, opener, state):
            os.close(descriptor)
        return process

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Kill the worker and reap it; its exit status."""
        process = self.processes.pop(name)
        process.send_signal(number)
        if number != signal.SIGKILL:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        process.kill()
        return process.wait()

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

    def _work(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            while self._is_open:
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
            self._connections[name] = connection
            control.send(connection, control.pack("configure", **self._told[name]))
        with self._changed:
            self.messages.append((name, message))
            self._changed.notify_all()
        return True
