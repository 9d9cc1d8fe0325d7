"""The supervisor's end of the control socket: who is connected, what they may say, and an end to
those who only hold a place.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from waagent.protocol import control
from waagent.supervisor.poll import Watch

_TURN_MESSAGES = 64  # of one connection in one turn: nobody keeps the others waiting
_WORKER_CONNECTIONS = 4
_CREDENTIALS = struct.Struct("3i")


class Connection:
    """One peer, as the kernel names it. ``worker`` is its name when its pid is a worker's,
    ``greeted`` once it said hello.
    """

    def __init__(
        self, endpoint: socket.socket, peer: control.Peer, worker: str | None, until: float
    ) -> None:
        self.endpoint, self.peer, self.worker, self.until = endpoint, peer, worker, until
        self.greeted = False
        self.unsent: tuple[bytes, tuple[int, ...]] | None = None

    def fileno(self) -> int:
        return self.endpoint.fileno()

    def send(self, packet: bytes, descriptors: tuple[int, ...] = ()) -> bool:
        """Whether it fitted; a peer that is gone is noticed when it is read."""
        try:
            return control.send(self.endpoint, packet, descriptors)
        except OSError:
            return False

    def deliver(self, packet: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Send now, or at the peer's next word: the newest of what must arrive."""
        self.unsent = None if self.send(packet, descriptors) else (packet, descriptors)


class Channel:
    """Invariant: at most FOREIGN_CONNECTIONS strangers, each for FOREIGN_PATIENCE_S; a worker
    speaks on one greeted connection.
    """

    def __init__(
        self, listener: socket.socket, watch: Watch, name_of: Callable[[int], str | None]
    ) -> None:
        """``listener`` does not block; ``name_of`` says which worker a pid is. Itself and its
        connections are in ``watch``.
        """
        self.connections: set[Connection] = set()
        self.refused = 0
        self._watch, self._name_of, self._listener = watch, name_of, listener
        self._spare = os.open("/dev/null", os.O_RDONLY)
        watch.add(self)

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept_all(self, now: float) -> list[Connection]:
        """Take in whoever waits."""
        taken: list[Connection] = []
        while True:
            try:
                endpoint, _ = self._listener.accept()
            except BlockingIOError:
                return taken
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    return taken
                self._turn_one_away()
                continue
            connection = self._admit(endpoint, now)
            if connection is None:
                endpoint.close()
            else:
                taken.append(connection)

    def _admit(self, endpoint: socket.socket, now: float) -> Connection | None:
        endpoint.setblocking(False)
        peer = control.Peer(
            *_CREDENTIALS.unpack(
                endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
        )
        worker = self._name_of(peer.pid)
        alike = [
            other
            for other in self.connections
            if (other.peer.pid == peer.pid if worker else other.worker is None)
        ]
        if len(alike) >= (_WORKER_CONNECTIONS if worker else control.FOREIGN_CONNECTIONS):
            self.refused += 1
            return None
        connection = Connection(
            endpoint, peer, worker, float("inf") if worker else now + control.FOREIGN_PATIENCE_S
        )
        self.connections.add(connection)
        self._watch.add(connection)
        return connection

    def _turn_one_away(self) -> None:
        """No descriptor is left: the spare one lets us say so by closing, instead of being woken
        for ever.
        """
        os.close(self._spare)
        try:
            self._listener.accept()[0].close()
        except OSError:
            pass  # it went away by itself
        self._spare = os.open("/dev/null", os.O_RDONLY)
        self.refused += 1

    def read(self, connection: Connection) -> Iterator[dict[str, Any]]:
        """What it said and may say now; closes a connection that ended or says what is no
        message.
        """
        for _ in range(_TURN_MESSAGES):
            limit = (
                control.HEARTBEAT_LIMIT_BYTES if connection.worker else control.FOREIGN_LIMIT_BYTES
            )
            try:
                packet = connection.endpoint.recv(limit + 1)
                message = control.unpack(packet, limit) if packet else None
            except BlockingIOError:
                return
            except OSError:
                message = None  # killed with words of ours unread: reset instead of an end
            except control.ControlError:
                self.refused += 1
                message = None
            if message is None:
                self.close(connection)
                return
            phase = (
                None if connection.worker is None else "greeted" if connection.greeted else "new"
            )
            reason = control.refusal(message, connection.peer.uid, phase)
            if reason is None:
                yield message
            else:
                self.refused += 1
                connection.send(control.pack("refused", reason=reason))
            if connection not in self.connections:
                return
            if connection.unsent is not None:
                connection.deliver(*connection.unsent)

    def of(self, worker: str) -> Connection | None:
        """The connection on which this worker said hello."""
        return next((one for one in self.connections if one.worker == worker and one.greeted), None)

    def next_due(self) -> float:
        """When the patience with the next stranger ends."""
        return min((connection.until for connection in self.connections), default=float("inf"))

    def expire(self, now: float) -> None:
        """Close the connections of strangers whose time is over."""
        for connection in [
            connection for connection in self.connections if connection.until <= now
        ]:
            self.close(connection)

    def close(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            self._watch.remove(connection)
            connection.endpoint.close()

    def forget(self, pid: int) -> None:
        """Close whatever a process that ended was connected by."""
        for connection in [
            connection
            for connection in self.connections
            if connection.worker and connection.peer.pid == pid
        ]:
            self.close(connection)
