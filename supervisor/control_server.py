"""The supervisor's end of the control socket: who is connected, what they may say, and an end to
those who only hold a place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from waagent.protocol import control
from waagent.supervisor import control_table
from waagent.supervisor.control_table import GREETED, NEW, Sender
from waagent.supervisor.poll import Watch

_TURN_MESSAGES = 64  # of one connection in one turn: nobody keeps the others waiting
WORKER_CONNECTIONS = 4  # of one worker
FOREIGN_CONNECTIONS = 16  # of all strangers together
FOREIGN_OF_A_UID = 4  # of one user, root apart
FOREIGN_FOR_ROOT = 4  # of all; nobody else gets these
FOREIGN_PATIENCE_S = 1.0
_CREDENTIALS = struct.Struct("3i")


class Connection:
    """One peer, as the kernel names it; ``greeted`` once a worker said hello."""

    def __init__(self, endpoint: socket.socket, sender: Sender, until: float) -> None:
        self.endpoint, self.sender, self.until = endpoint, sender, until
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


class ControlServer:
    """Invariant: at most FOREIGN_CONNECTIONS strangers, each for FOREIGN_PATIENCE_S, no user but
    root with more than his share; a worker speaks on one greeted connection.
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
            taken += self._admit(endpoint, now)

    def _admit(self, endpoint: socket.socket, now: float) -> list[Connection]:
        endpoint.setblocking(False)
        pid, uid, gid = _CREDENTIALS.unpack(
            endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        sender = Sender(pid, uid, gid, self._name_of(pid) or "")
        if not self._has_room(sender):
            self.refused += 1
            endpoint.close()
            return []
        until = now + FOREIGN_PATIENCE_S if not sender.worker else float("inf")
        connection = Connection(endpoint, sender, until)
        self.connections.add(connection)
        self._watch.add(connection)
        return [connection]

    def _has_room(self, sender: Sender) -> bool:
        present = [connection.sender for connection in self.connections]
        if sender.worker:
            return [other.pid for other in present].count(sender.pid) < WORKER_CONNECTIONS
        uids = [other.uid for other in present if not other.worker]
        if sender.uid == 0 or len(uids) >= FOREIGN_CONNECTIONS:
            return len(uids) < FOREIGN_CONNECTIONS
        of_users = len(uids) - uids.count(0)
        has_share = uids.count(sender.uid) < FOREIGN_OF_A_UID
        return has_share and of_users < FOREIGN_CONNECTIONS - FOREIGN_FOR_ROOT

    def _turn_one_away(self) -> None:
        """No descriptor is left: the spare one lets us say so by closing, instead of being woken
        for ever.
        """
        os.close(self._spare)
        with contextlib.suppress(OSError):  # it went away by itself
            self._listener.accept()[0].close()
        self._spare = os.open("/dev/null", os.O_RDONLY)
        self.refused += 1

    def hear(self, connection: Connection) -> Iterator[tuple[str, Any]]:
        """What it said and may say now, parsed, with the name of the supervisor's method for it.

        A connection that ended, or that says what is no message, is closed; what is refused is
        answered and counted.
        """
        for _ in range(_TURN_MESSAGES):
            try:
                message = self._receive(connection)
            except BlockingIOError:
                return
            if message is None:
                self.close(connection)
                return
            heard = self._parse(connection, message)
            if heard is not None:
                yield heard
            if connection not in self.connections:
                return
            if connection.unsent is not None:
                connection.deliver(*connection.unsent)

    def _receive(self, connection: Connection) -> dict[str, Any] | None:
        worker = connection.sender.worker
        limit = control.HEARTBEAT_LIMIT_BYTES if worker else control.FOREIGN_LIMIT_BYTES
        try:
            packet = connection.endpoint.recv(limit + 1)
            return control.unpack(packet, limit) if packet else None
        except BlockingIOError:
            raise
        except OSError:
            return None  # killed with words of ours unread: reset instead of an end
        except control.ControlError:
            self.refused += 1
            return None

    def _parse(self, connection: Connection, said: dict[str, Any]) -> tuple[str, Any] | None:
        """The one place where a peer's mistake is caught: what follows is our own."""
        kind, sender = said["type"], connection.sender
        reason = control_table.refusal(kind, sender, GREETED if connection.greeted else NEW)
        if reason is None:
            message = control_table.MESSAGES[kind]
            try:
                return message.method, message.parse(sender, said)
            except control.ControlError as error:
                reason = f"{kind}: {error}"
        self.refused += 1
        connection.send(control.pack("refused", reason=reason))
        return None

    def of(self, worker: str) -> Connection | None:
        """The connection on which this worker said hello."""
        greeted = (one for one in self.connections if one.greeted)
        return next((one for one in greeted if one.sender.worker == worker), None)

    def next_due(self) -> float:
        """When the patience with the next stranger ends."""
        return min((connection.until for connection in self.connections), default=float("inf"))

    def expire(self, now: float) -> None:
        """Close the connections of strangers whose time is over."""
        for connection in [one for one in self.connections if one.until <= now]:
            self.close(connection)

    def close(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            self._watch.remove(connection)
            connection.endpoint.close()

    def forget(self, pid: int) -> None:
        """Close whatever a worker that ended was connected by."""
        for connection in list(self.connections):
            if connection.sender.worker and connection.sender.pid == pid:
                self.close(connection)
