"""Connects to the platform for fabric_client, where a firewall lets only root do so, and hands the
connected socket over (protocol/wire/handover.py).

Who asks is what the kernel says: its pid must stand in the supervisor's state file as
fabric_client, before a byte of it is read. It can get nothing but a connection to one of three
places; nothing is sent or read on it here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from waagent.protocol import control
from waagent.protocol.bus.admission import worker_of
from waagent.protocol.state_table import StateError, parse_table, read_state
from waagent.protocol.wire import handover

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

ASKERS_LIMIT = 16
REQUEST_S = 1.0  # from the connection to the request


class Handover:
    """Serves one request a connection. Invariant: never waits, and keeps no more than ASKERS_LIMIT
    connections, each for REQUEST_S + CONNECT_S at most.
    """

    def __init__(
        self,
        worker: Worker,
        listener: int,
        places: Mapping[str, tuple[str, int]] = handover.PLACES,
    ) -> None:
        """``listener`` is a raw descriptor, ours from here on."""
        self._worker, self.places = worker, places
        self._listener = socket.socket(fileno=listener)
        self._listener.setblocking(False)
        self._askers: set[_Asker] = set()
        self.address = ""
        """Of the WireServer; empty until it is found."""
        self.refused = 0
        """Strangers so far."""
        worker.loop.on_readable(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again, or there is no descriptor left: the next may do
            return
        connection.setblocking(False)
        if len(self._askers) >= ASKERS_LIMIT or not self._is_admitted(connection):
            connection.close()
            return
        self._askers.add(_Asker(self._worker, self, connection))

    def _is_admitted(self, connection: socket.socket) -> bool:
        pid, uid, _ = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        try:
            name = worker_of(parse_table(read_state(self._worker.state)), pid)
        except StateError:
            name = None
        if name == handover.CLIENT:
            return True
        self.refused += 1
        self._worker.faults.seen(
            "handover stranger",
            f"a stranger asked for a connection to the platform: pid={pid} uid={uid}: not"
            " admitted, nothing of it was read",
        )
        return False

    def is_over(self, asker: _Asker) -> None:
        """It was answered, or left."""
        self._askers.discard(asker)


class _Asker:
    """One connection of fabric_client. Invariant: after `_end` no descriptor of it is open here."""

    def __init__(self, worker: Worker, owner: Handover, connection: socket.socket) -> None:
        self._worker, self._owner, self._connection = worker, owner, connection
        self._attempt: socket.socket | None = None
        self._timer = worker.loop.after(REQUEST_S, self._end)
        worker.loop.on_readable(connection.fileno(), self._read)

    def _read(self) -> None:
        try:
            packet = self._connection.recv(handover.PACKET_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet or self._attempt is not None:
            self._end()  # it left, or says more than one word
            return
        try:
            message = control.unpack(packet)
        except control.ControlError:
            self._end()
            return
        place = self._owner.places.get(str(message.get("to")))
        if message["type"] != "connect" or place is None:
            self._refuse("there is no such place")
        elif not (place[0] or self._owner.address):
            self._refuse("the WireServer is not found yet")
        else:
            self._connect((place[0] or self._owner.address, place[1]))

    def _connect(self, address: tuple[str, int]) -> None:
        self._attempt = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._timer.cancel()
        self._timer = self._worker.loop.after(
            handover.CONNECT_S, lambda: self._refuse("no connection in time")
        )
        status = self._attempt.connect_ex(address)
        if status in (0, errno.EINPROGRESS):
            self._worker.loop.on_writable(self._attempt.fileno(), self._connected)
        else:
            self._refuse(os.strerror(status))

    def _connected(self) -> None:
        if self._attempt is None:
            return
        status = self._attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            self._refuse(os.strerror(status))
            return
        try:
            socket.send_fds(self._connection, [control.pack("connected")], [self._attempt.fileno()])
        except OSError:
            pass  # it left
        self._end()

    def _refuse(self, reason: str) -> None:
        try:
            self._connection.send(control.pack("refused", reason=reason))
        except OSError:
            pass  # it left
        self._end()

    def _end(self) -> None:
        self._timer.cancel()
        for held in (self._connection, self._attempt):
            if held is not None and held.fileno() >= 0:
                self._worker.loop.forget(held.fileno())
                held.close()
        self._owner.is_over(self)
