"""One HTTP request and its answer inside the worker's loop: nothing blocks, and one deadline covers
all of it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.records import Record
from waagent.protocol.wire.http1 import Answer, AnswerReader

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

_CHUNK_BYTES = 32 * 1024


class Outcome(Record):
    """How an exchange ended: with an answer, or with the reason why there is none."""

    answer: Answer | None
    error: str = ""
    is_connected: bool = True
    """False: not even the connection came about."""


class Exchange:
    """Invariant: ``done`` is called exactly once, unless `drop` was called before; then the socket
    is closed.
    """

    def __init__(
        self,
        worker: Worker,
        address: tuple[str, int],
        request: bytes,
        where: str,
        *,
        limit_bytes: int,
        deadline_s: float,
        done: Callable[[Outcome], None],
        connected: socket.socket | None = None,
    ) -> None:
        """``connected``: a connection to ``address`` that was handed over, ours from here on."""
        self._worker, self._done, self._where = worker, done, where
        self._left = memoryview(request)
        self._reader = AnswerReader(where, limit_bytes=limit_bytes)
        self._is_connected = connected is not None
        self._deadline_s = deadline_s
        self._timer = worker.loop.after(deadline_s, self._expire)
        if connected is not None:
            self._socket = connected
            self._socket.setblocking(False)
            worker.loop.on_writable(self._socket.fileno(), self._write)
            return
        self._socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        status = self._socket.connect_ex(address)
        if status not in (0, errno.EINPROGRESS):
            self._timer.cancel()
            self._timer = worker.loop.after(
                0, lambda: self._finish(Outcome(None, self._text(os.strerror(status)), False))
            )
            return
        worker.loop.on_writable(self._socket.fileno(), self._write)

    def drop(self) -> None:
        """Forget the exchange without a word."""
        self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._worker.loop.forget(self._socket.fileno())
            self._socket.close()

    def _text(self, what: str) -> str:
        return f"{what}: {self._where}"

    def _finish(self, outcome: Outcome) -> None:
        self.drop()
        self._done(outcome)

    def _expire(self) -> None:
        what = "no whole answer" if self._is_connected else "no connection"
        self._finish(
            Outcome(None, self._text(f"{what} within {self._deadline_s:g} s"), self._is_connected)
        )

    def _write(self) -> None:
        try:
            if not self._is_connected:
                status = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if status:
                    raise OSError(status, os.strerror(status))
                self._is_connected = True
            self._left = self._left[self._socket.send(self._left[: _CHUNK_BYTES * 4]) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(
                Outcome(None, self._text(error.strerror or "connection failed"), self._is_connected)
            )
            return
        if not self._left:
            self._worker.loop.on_readable(self._socket.fileno(), self._read)
            self._worker.loop.forget_writable(self._socket.fileno())

    def _read(self) -> None:
        try:
            data = self._socket.recv(_CHUNK_BYTES)
            answer = self._reader.feed(data) if data else self._reader.end()
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(Outcome(None, self._text(error.strerror or "connection lost")))
            return
        except DocumentError as error:
            self._finish(Outcome(None, f"{error.what}: {error.where}"))
            return
        if answer is not None:
            self._finish(Outcome(answer))
