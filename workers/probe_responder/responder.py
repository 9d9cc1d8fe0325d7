"""The probe server: many ports, many connections, one thread, nobody who can make it wait.

A caller gets one answer to whatever it sends within PATIENCE_S; one that only connects, or is idle
or slow, costs a descriptor for that long at most, and is the first to go when there are too many.
Source: spec/platform.md §8 with its Rule.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterable

from waagent.protocol.base.log import Log

PATIENCE_S = 5.0
READ_BYTES = 1024
DISCARD_LIMIT_BYTES = 64 * 1024  # what a caller may send behind its request before it is cut off
_BACKLOG = 512
_ACCEPTS_PER_TURN = 128
_EVENTS_PER_TURN = 256
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def answer_at(seconds: float) -> bytes:
    """The whole answer, dated ``seconds`` after 1970; names are not localised."""
    at = time.gmtime(seconds)
    day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04}"
    date = f"{day} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT"
    head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html\r\n"
    return f"{head}Date: {date}\r\n\r\nOK".encode("ascii")


class _Caller:
    """One connection. Invariant: it is in the responder's table until its socket is closed."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection, self.until = connection, until
        self.is_answered = False
        self.discarded_bytes = 0


class Responder:
    """All ports and all callers behind one epoll descriptor. Invariant: no call of it waits, every
    socket of it is watched.
    """

    def __init__(
        self, connections_limit: int, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = max(1, connections_limit)
        self._log = log
        self._clock = clock
        self._poll = select.epoll()
        self._listeners: dict[int, socket.socket] = {}
        self._port_of: dict[int, int] = {}
        self._callers: dict[int, _Caller] = {}
        self._address = ""
        self.answered = 0
        self.refused_for_room = 0

    def fileno(self) -> int:
        """Readable when `turn` has something to do."""
        return self._poll.fileno()

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that are answered."""
        return tuple(sorted(self._listeners))

    @property
    def callers(self) -> int:
        return len(self._callers)

    def listen(self, address: str, ports: Iterable[int]) -> dict[int, str]:
        """Answer on exactly these ports; those that stay are not touched. The ports that could not
        be had, with the reason.
        """
        wanted = set(ports)
        for port in [
            port for port in self._listeners if address != self._address or port not in wanted
        ]:
            self._close_listener(port)
        self._address = address
        problems = {}
        for port in sorted(wanted - set(self._listeners)):
            try:
                self._open_listener(address, port)
            except OSError as error:
                problems[port] = error.strerror or str(error)
        return problems

    def turn(self) -> None:
        """Take new callers, read, answer, let go: whatever is possible now."""
        for descriptor, _ in self._poll.poll(0, _EVENTS_PER_TURN):
            if descriptor in self._port_of:
                self._accept(self._listeners[self._port_of[descriptor]])
            elif descriptor in self._callers:
                self._serve(self._callers[descriptor])

    def sweep(self) -> float | None:
        """Let go of callers whose time is over; seconds until the next one's is, None without
        callers.
        """
        now = self._clock()
        while self._callers:
            oldest = next(iter(self._callers.values()))
            if oldest.until > now:
                return oldest.until - now
            self._let_go(oldest)
        return None

    def close(self) -> None:
        """Close every socket."""
        for port in list(self._listeners):
            self._close_listener(port)
        for caller in list(self._callers.values()):
            self._let_go(caller)
        self._poll.close()

    def _open_listener(self, address: str, port: int) -> None:
        listener = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listeners[port] = listener
        self._port_of[listener.fileno()] = port
        self._poll.register(listener.fileno(), select.EPOLLIN)

    def _close_listener(self, port: int) -> None:
        listener = self._listeners.pop(port)
        del self._port_of[listener.fileno()]
        self._poll.unregister(listener.fileno())
        listener.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            if len(self._callers) >= self._limit:
                self.refused_for_room += 1
                # who has waited longest without a word
                self._let_go(next(iter(self._callers.values())))
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if (
                    error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
                    and self._callers
                ):
                    self._let_go(next(iter(self._callers.values())))
                    continue
                return  # the caller went away meanwhile: the next turn takes the next one
            connection.setblocking(False)
            caller = _Caller(connection, self._clock() + PATIENCE_S)
            self._callers[connection.fileno()] = caller
            self._poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLRDHUP)
            self._serve(caller)

    def _serve(self, caller: _Caller) -> None:
        try:
            data = caller.connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._let_go(caller)
            return
        if caller.is_answered:
            caller.discarded_bytes += len(data)
        elif data:
            self._answer(caller)
        if not data or caller.discarded_bytes > DISCARD_LIMIT_BYTES:
            self._let_go(caller)

    def _answer(self, caller: _Caller) -> None:
        try:
            # an empty send buffer takes 150 bytes at once; closing only the sending half keeps
            # unread input from
            # turning into a reset that would overtake the answer
            caller.connection.send(answer_at(time.time()))
            caller.connection.shutdown(socket.SHUT_WR)
        except OSError:
            return  # the caller is gone: its end is read next
        caller.is_answered = True
        self.answered += 1
        if self.answered == 1:
            self._log.info(
                "first load-balancer probe answered port=%d", caller.connection.getsockname()[1]
            )

    def _let_go(self, caller: _Caller) -> None:
        descriptor = caller.connection.fileno()
        del self._callers[descriptor]
        self._poll.unregister(descriptor)
        caller.connection.close()
