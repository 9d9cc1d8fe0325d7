"""A real supervisor in its own process below a temporary root, with a roster of fake workers, to be
killed and stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from waagent.distro import processes
from waagent.distro.cgroups import trees
from waagent.distro.paths import Paths
from waagent.protocol import control, state_table

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parents[2]
PATIENCE_S = 90.0


class ASupervisor:
    """Starts, watches and ends one supervisor; everything it does a person could do from
    outside.
    """

    def __init__(
        self, root: Path, rows: str, without: str = "", before: tuple[str, ...] = ()
    ) -> None:
        """``rows`` is a Python expression: pairs of a row and the behaviour of its worker.
        ``before`` stands before the command.
        """
        self.root, self.paths, self.rows = root, Paths(root), rows
        self.without, self.before = without, before
        self.tree = f"waagent-test-{os.getpid()}-{root.name[-12:]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = str(HERE / "run_supervisor.py")
        argv = [
            *self.before,
            sys.executable,
            script,
            str(self.root),
            self.rows,
            self.without,
            self.tree,
        ]
        self.process = subprocess.Popen(
            argv,
            cwd=HOUSE,
            env={**os.environ, "PYTHONPATH": f"{HOUSE}:{HERE}"},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def ask(self, kind: str = "list", **fields: Any) -> dict[str, Any]:
        """One question on the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.settimeout(30)
            line.connect(str(self.paths.control_socket))
            line.send(control.pack(kind, **fields))
            return control.unpack(line.recv(control.PACKET_LIMIT_BYTES))

    def state_file(self) -> dict[str, Any]:
        with open(self.paths.state, "rb") as file:
            return state_table.read_state(file.fileno())

    def rows_now(self) -> dict[str, dict[str, Any]]:
        try:
            return {row["name"]: row for row in self.ask()["workers"]}
        except (OSError, control.ControlError, KeyError):
            return {}

    def row(self, name: str) -> dict[str, Any]:
        return self.rows_now().get(name, {})

    def wait(
        self, is_true: Callable[[dict[str, dict[str, Any]]], Any], patience_s: float = PATIENCE_S
    ) -> dict[str, dict[str, Any]]:
        """Look until it is so; fails with what was seen last."""
        until = time.monotonic() + patience_s
        rows: dict[str, dict[str, Any]] = {}
        while time.monotonic() < until:
            rows = self.rows_now()
            with contextlib.suppress(KeyError, IndexError):
                if rows and is_true(rows):
                    return rows
            time.sleep(0.01)
        seen = {
            name: (row["state"], row["pid"], row["last_exit"], row["reason"])
            for name, row in rows.items()
        }
        raise AssertionError(f"not within {patience_s} s; last seen {seen}\n{self.log()}")

    def wait_ready(self, *names: str, patience_s: float = PATIENCE_S) -> dict[str, dict[str, Any]]:
        return self.wait(
            lambda rows: all(rows[name]["state"] == "READY" for name in names or rows), patience_s
        )

    def log(self) -> str:
        return self.paths.log.read_text("utf-8") if self.paths.log.exists() else ""

    def end(self) -> None:
        """Kill it and take away what is left of it."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for name in (self.tree, f"{self.tree}-left"):
            tree = trees.Tree(trees.bases_of_self(), name)
            tree.empty(deadline_s=2)
            tree.leaf("supervisor").kill()
            tree.remove()


@contextlib.contextmanager
def a_supervisor(
    root: Path, rows: str, without: str = "", before: tuple[str, ...] = ()
) -> Iterator[ASupervisor]:
    """Started, and gone afterwards."""
    supervisor = ASupervisor(root, rows, without, before)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.end()


def is_alive(pid: int) -> bool:
    return processes.is_alive(pid)
