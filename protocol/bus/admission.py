"""Who may speak on a bus socket: the processes that the supervisor's state file names, under their
worker's name.

libzmq asks over ZAP (ZeroMQ RFC 27) for each connection and waits; the kernel's word on the peer
stands at the end of the address, ``…:uid:gid:pid``. An unknown pid is answered 300: the connection
is closed after a second and may come back, whereas a client that got 400 would never ask again. It
runs in the worker's own loop, without a thread.
"""

from __future__ import annotations

import zmq

from waagent.protocol.base.records import Record
from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus import sockets
from waagent.protocol.bus.bus_loop import Loop
from waagent.protocol.state_table import StateError, Table, parse_table, read_state

ADMITTED, NOT_NOW = b"200", b"300"
_ASKED_PER_TURN = 64
_FIELDS = 7  # delimiter, version, request id, domain, address, routing id, mechanism
_VERSION = b"1.0"


class Peer(Record):
    """Who is at the other end, as the kernel says."""

    uid: int
    gid: int
    pid: int


def peer_of(address: bytes) -> Peer | None:
    """The peer that ``address`` of a ZAP request ends with; None when it is no Unix socket's."""
    parts = address.rsplit(b":", 3)
    if len(parts) != 4 or not all(part.isdigit() for part in parts[1:]):
        return None
    return Peer(int(parts[1]), int(parts[2]), int(parts[3]))


def worker_of(table: Table, pid: int) -> str | None:
    """The name of the worker that has ``pid`` in the supervisor's table."""
    return next((row.name for row in table.workers if row.pid == pid and pid > 0), None)


class Admission:
    """Answers libzmq's questions. Invariant: nobody is admitted whose pid the state file does not
    name at that moment.
    """

    def __init__(
        self, loop: Loop, context: zmq.Context[zmq.Socket[bytes]], state: int, faults: Faults
    ) -> None:
        """``state`` is a descriptor of the state file. To be made before the socket that it
        guards.
        """
        self._loop = loop
        self._state = state
        self._faults = faults
        self._socket = sockets.open_admission(context)
        self.refused = 0
        """Connections not admitted so far."""
        loop.on_readable(self._socket, self._answer_all)

    def close(self) -> None:
        """Admit nobody any more."""
        self._loop.forget(self._socket)
        self._socket.close(0)

    def _answer_all(self) -> None:
        for _ in range(_ASKED_PER_TURN):
            try:
                asker, *fields = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(fields) >= _FIELDS and fields[1] == _VERSION:
                status, name = self._decide(fields[3], fields[4])
                self._send([asker, b"", _VERSION, fields[2], status, b"", name, b""])

    def _decide(self, domain: bytes, address: bytes) -> tuple[bytes, bytes]:
        peer = peer_of(address)
        name = None
        if peer is not None and domain == sockets.DOMAIN:
            try:
                name = worker_of(parse_table(read_state(self._state)), peer.pid)
            except StateError as error:
                self._faults.seen(
                    "bus state",
                    f"nobody can be admitted: {error}: none needed, asked again each second",
                )
        if name is not None:
            return ADMITTED, name.encode()
        self.refused += 1
        who = "from no Unix socket" if peer is None else f"pid={peer.pid} uid={peer.uid}"
        self._faults.seen(
            "bus stranger",
            f"a stranger asked for the bus: {who}: not admitted, nothing of it was read",
        )
        return NOT_NOW, b""

    def _send(self, frames: list[bytes]) -> None:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self._faults.seen(
                "bus admission",
                "an answer to libzmq did not fit: bus: none needed, the peer comes back",
            )
