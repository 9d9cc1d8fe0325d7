"""The HTTP plumbing under the emulated servers: read a request, ask a router, answer, spoil it when
a fault says so.
"""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from waagent.lab.fabric.faults import Fault, spoil, transmit
from waagent.lab.fabric.values import Answer, Recorded

BODY_LIMIT_BYTES = 64 * 1024 * 1024
IDLE_S = 60.0


@dataclass(frozen=True)
class Request:
    """One request as the routers see it; header names in lower case."""

    server: str
    method: str
    path: str
    """The raw request target, query included."""
    headers: Mapping[str, str]
    body: bytes


Route = Callable[[Request], "tuple[str, Answer]"]
"""request -> (target of faults, answer)"""


class Listener:
    """One listening address. Invariant: between open and close exactly one thread accepts."""

    def __init__(
        self,
        server: str,
        address: str,
        port: int,
        route: Route,
        fault_for: Callable[[str], Fault | None],
        record: Callable[[Recorded], None],
    ) -> None:
        handler = type("Handler", (_Handler,), {"lab": (server, route, fault_for, record)})
        self._server = _Server((address, port), handler)
        self.port = self._server.server_address[1]
        serve = self._server.serve_forever
        self._thread = threading.Thread(
            target=serve, kwargs={"poll_interval": 0.05}, daemon=True, name=f"lab-{server}"
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is not the lab's problem."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    lab: tuple[str, Route, Callable[[str], Fault | None], Callable[[Recorded], None]]

    def _answer(self) -> None:
        server, route, fault_for, record = self.lab
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length") or 0)
        body = self.rfile.read(min(length, BODY_LIMIT_BYTES))
        request = Request(server, self.command, self.path, headers, body)
        target, answer = route(request)
        fault = fault_for(target)
        if fault is not None:
            answer = spoil(answer, fault.kind)
        record(Recorded(time.time(), self.command, self.path, headers, body, server, answer.status))
        if self.command == "HEAD":
            answer = Answer(answer.status, b"", answer.content_type, answer.headers)
        transmit(self.connection, lambda size: self._head(answer, size), answer, fault)
        transport_fault = fault is not None and fault.kind in (
            "short",
            "huge",
            "huge_open",
            "hang",
            "reset",
        )
        if transport_fault or headers.get("connection", "").lower() == "close":
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer

    def _head(self, answer: Answer, size: int | None) -> bytes:
        phrase = self.responses.get(answer.status, ("",))[0]
        lines = [
            f"HTTP/1.1 {answer.status} {phrase}",
            f"Content-Type: {answer.content_type}",
            f"Date: {self.date_time_string()}",
        ]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        if size is not None:
            lines.append(f"Content-Length: {size}")
        if size is None or self.headers.get("connection", "").lower() == "close":
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def log_message(self, format: str, *arguments: object) -> None:
        """The recorder knows more than an access log would say."""


def free_port(address: str = "127.0.0.1") -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
