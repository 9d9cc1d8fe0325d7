"""The HTTP plumbing under the emulated servers: read a request, ask a router, answer, spoil it when
a fault says so.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate

from waagent.lab.fabric.authority import GOOD, Authority
from waagent.lab.fabric.faults import ENDS_CONNECTION, Fault, spoil, transmit
from waagent.lab.fabric.values import Answer, Recorded

BODY_LIMIT_BYTES = 64 * 1024 * 1024
IDLE_S = 60.0
HANDSHAKE_S = 10.0


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
        authority: Authority | None = None,
    ) -> None:
        """With ``authority`` it speaks TLS; a fault of the target `tls` chooses the certificate."""
        handler = type("Handler", (_Handler,), {"lab": (server, route, fault_for, record)})
        self._server = _Server((address, port), handler)
        if authority is not None:
            self._server.choose_context = lambda: _context_for(authority, fault_for("tls"))
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
    request_queue_size = 512
    choose_context: Callable[[], ssl.SSLContext] | None = None
    """How a connection is secured; None: it is not."""

    def finish_request(self, request: object, client_address: object) -> None:
        """In the connection's own thread: a client that is slow to greet holds up nobody else."""
        assert isinstance(request, socket.socket)
        if self.choose_context is None:
            socketserver.BaseServer.finish_request(self, request, client_address)
            return
        request.settimeout(HANDSHAKE_S)
        with self.choose_context().wrap_socket(request, server_side=True) as secured:
            socketserver.BaseServer.finish_request(self, secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is not the lab's problem."""


def _context_for(authority: Authority, fault: Fault | None) -> ssl.SSLContext:
    return authority.context(GOOD if fault is None else fault.kind)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    _clock_jump_s = 0.0
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
        self._clock_jump_s = fault.argument if fault is not None and fault.kind == "clock" else 0.0
        now = time.time()
        record(Recorded(now, self.command, self.path, headers, body, server, answer.status, target))
        if self.command == "HEAD":
            answer = Answer(answer.status, b"", answer.content_type, answer.headers)
        transmit(self.connection, lambda size: self._head(answer, size), answer, fault)
        ends = fault is not None and fault.kind in ENDS_CONNECTION
        if ends or headers.get("connection", "").lower() == "close":
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer

    def _head(self, answer: Answer, size: int | None) -> bytes:
        phrase = self.responses.get(answer.status, ("",))[0]
        lines = [
            f"HTTP/1.1 {answer.status} {phrase}",
            f"Content-Type: {answer.content_type}",
            f"Date: {formatdate(time.time() + self._clock_jump_s, usegmt=True)}",
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
