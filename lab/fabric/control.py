"""The fabric steered from another process: one JSON line per call over a Unix socket, and the
object that makes the calls.

A call is ``{"call": NAME, "args": [...], "kwargs": {...}}``, its answer ``{"result": ...}`` or
``{"error": TEXT}``. Bodies of recorded requests cross as Latin-1 text.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from pathlib import Path
from typing import Any

from waagent.lab.fabric.fabric import Fabric
from waagent.lab.fabric.values import LabError, Recorded
from waagent.lab.fabric.watching import Watching
from waagent.lab.tools import short_path

VALUES = (
    "health",
    "properties",
    "statuses",
    "complaints",
    "telemetry",
    "observations",
    "agent_logs",
)
CALLS = (
    "goal_state",
    "change",
    "set_extensions",
    "set_fast_track",
    "set_remote_users",
    "vanish",
    "go_away",
    "come_back",
    "move_container",
    "miss_role_instance",
    "fault",
    "clear_faults",
    "forget",
    "probe",
    "start_probing",
    "probing",
)


def serve(fabric: Fabric, path: Path) -> socketserver.ThreadingUnixStreamServer:
    """Listen on ``path`` and carry out calls on ``fabric`` until the server is shut down."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(json.dumps(_carry_out(fabric, line)).encode() + b"\n")

    with short_path(path) as address:
        server = socketserver.ThreadingUnixStreamServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, name="lab-control").start()
    return server


def _carry_out(fabric: Fabric, line: bytes) -> dict[str, Any]:
    order = json.loads(line)
    name = order["call"]
    try:
        if name == "recorded":
            return {
                "result": [
                    [*item[:4], item.body.decode("latin-1"), *item[5:]]
                    for item in fabric.recorded[order["args"][0] :]
                ]
            }
        if name in VALUES:
            return {"result": getattr(fabric, name)}
        if name in CALLS:
            return {"result": getattr(fabric, name)(*order["args"], **order["kwargs"])}
    except (LabError, TypeError, ValueError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": f"the fabric has no call {name}"}


class RemoteFabric(Watching):
    """The fabric as seen from another process; same values and calls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """One call. Raises LabError with the fabric's words."""
        with self._lock, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60.0)
            try:
                with short_path(self._path) as address:
                    connection.connect(address)
                connection.sendall(
                    json.dumps({"call": name, "args": args, "kwargs": kwargs}).encode() + b"\n"
                )
                with connection.makefile("rb") as stream:
                    line = stream.readline()
            except OSError as error:
                raise LabError("the fabric does not answer", str(self._path), str(error)) from error
        if not line:
            raise LabError("the fabric ended", str(self._path), "look at the machine's console")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(answer["error"], "fabric", "see the call")
        return answer["result"]

    @property
    def recorded(self) -> list[Recorded]:
        return [
            Recorded._make([*item[:4], item[4].encode("latin-1"), *item[5:]])
            for item in self.ask("recorded", 0)
        ]

    @property
    def health(self) -> list[dict[str, Any]]:
        return list(self.ask("health"))

    @property
    def properties(self) -> list[dict[str, str]]:
        return list(self.ask("properties"))

    @property
    def statuses(self) -> list[dict[str, Any]]:
        return list(self.ask("statuses"))

    @property
    def complaints(self) -> list[str]:
        return list(self.ask("complaints"))

    @property
    def telemetry(self) -> list[dict[str, Any]]:
        return list(self.ask("telemetry"))

    @property
    def observations(self) -> list[dict[str, Any]]:
        return list(self.ask("observations"))

    @property
    def agent_logs(self) -> list[str]:
        return list(self.ask("agent_logs"))

    def __getattr__(self, name: str) -> Any:
        if name in CALLS:
            return lambda *args, **kwargs: self.ask(name, *args, **kwargs)
        raise AttributeError(name)
