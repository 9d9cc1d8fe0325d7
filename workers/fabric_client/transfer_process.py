"""The transfer process as fabric_client sees it: pieces of work go to one process, which is started
with the first and ends some seconds after the last; nothing of it is ever waited for.

Each piece of work has a socket, a child of the process and a deadline of its own. A child that dies
of what it reads is one error; that piece of work is asked once more, in a fresh process.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from waagent.distro import our_python, programs

if TYPE_CHECKING:
    from waagent.workers.fabric_client.handed_connections import HandedConnections
    from waagent.workers.runtime import Worker

_CHUNK_BYTES = 32 * 1024
RESULT_LIMIT_BYTES = 12 * 1024 * 1024
IDLE_S = 20.0  # after the last piece of work the process ends
TRIES = 2
_FAREWELL_S = 5.0  # from the end of its orders to its own

Frame = dict[str, Any]


class _Process:
    """One process that forks a child for each piece of work."""

    def __init__(self, worker: Worker, spool: Path) -> None:
        """Raises OSError when it cannot be started."""
        self._worker = worker
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.setblocking(False)
        with theirs:
            self._process = programs.start(
                our_python.argv("waagent.workers.fabric_client.transfer", title="transfer"),
                {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TMPDIR": str(spool)},
                theirs.fileno(),
                session=False,
            )
        worker.place_tool(self._process.pid)
        worker.loop.on_exit(self._process.pid, self._exited)

    def give(self, descriptor: int) -> bool:
        """Hand over one end of a piece of work's socket; False when it has ended."""
        try:
            socket.send_fds(self._orders, [b"work"], [descriptor])
        except OSError:
            return False
        return True

    def end(self) -> None:
        """No more orders: it ends by itself, its children when their work is done."""
        if self._orders.fileno() >= 0:
            self._orders.close()
            self._worker.loop.after(_FAREWELL_S, self._kill)

    def _kill(self) -> None:
        if self._process.status is None:
            os.kill(self._process.pid, signal.SIGKILL)

    def _exited(self, status: int) -> None:
        self._process.status = status


class _Work:
    """One piece of work. Invariant: ``on_end`` is called exactly once, with no descriptor of it
    open.
    """

    def __init__(
        self,
        transfer: Transfer,
        worker: Worker,
        job: bytes,
        *,
        deadline_s: float,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._transfer, self._worker, self._job = transfer, worker, job
        self._on_frame, self._on_end = on_frame, on_end
        self._tries = 0
        self._connection: socket.socket | None = None
        self._timer = worker.loop.after(deadline_s, self._expire)

    def begin(self) -> None:
        """Give it to a child of the transfer process."""
        self._tries += 1
        self._left = memoryview(self._job)
        self._unpacker = _unpacker()
        self._seen_bytes = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self._connection = ours
        with theirs:
            error = self._transfer.give(theirs.fileno())
        if error:
            self._worker.loop.after(0, lambda: self._finish(error))
            return
        self._worker.loop.on_readable(ours.fileno(), self._read)
        self._worker.loop.on_writable(ours.fileno(), self._write)

    def _write(self) -> None:
        assert self._connection is not None
        try:
            self._left = self._left[self._connection.send(self._left) :]
        except BlockingIOError:
            return
        except OSError:
            self._left = memoryview(b"")  # it has ended, as reading will tell
        if not self._left:
            self._worker.loop.forget_writable(self._connection.fileno())

    def _read(self) -> None:
        if self._connection is None:
            return
        try:
            data = self._connection.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:  # it ended with our job half read
            data = b""
        if not data:
            self._died()
            return
        self._seen_bytes += len(data)
        try:
            if self._seen_bytes > RESULT_LIMIT_BYTES:
                raise ValueError(f"its result has more than {RESULT_LIMIT_BYTES} bytes")
            self._unpacker.feed(data)
            frames = [frame for frame in self._unpacker if isinstance(frame, dict)]
        except (ValueError, msgpack.UnpackException) as error:
            self._finish(f"transfer: {error}")
            return
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if self._connection is None:
            return
        if frame.get("kind") == "end":
            self._finish("")
        elif frame.get("kind") == "connect":
            self._transfer.connect(str(frame.get("to")), self._hand_over)
        else:
            self._on_frame(frame)

    def _hand_over(self, connected: socket.socket | None, error: str) -> None:
        """Pass a connection on to the child; without one it is told so."""
        if self._connection is not None:
            try:
                if connected is None:
                    self._connection.send(b"x")
                else:
                    socket.send_fds(self._connection, [b"c"], [connected.fileno()])
            except OSError:
                pass  # it has ended, as reading will tell
        if connected is not None:
            connected.close()

    def _died(self) -> None:
        """Without a word: killed, out of memory, or by what it read."""
        self._transfer.renew()
        if self._tries < TRIES:
            self._close()
            self.begin()
        else:
            self._finish("transfer died of it, twice: see waagent.log")

    def _expire(self) -> None:
        self._finish("transfer took too long and was given up")

    def _close(self) -> None:
        if self._connection is not None:
            self._worker.loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _finish(self, error: str) -> None:
        self._timer.cancel()
        self._close()
        self._transfer.is_over(self)
        self._on_end(error)


class Transfer:
    """Pieces of work and the process that does them. Invariant: at most one process takes new work,
    and none is left IDLE_S after the last piece.
    """

    def __init__(
        self, worker: Worker, spool: Path, handed: HandedConnections, *, idle_s: float = IDLE_S
    ) -> None:
        self._worker, self._spool, self._handed, self._idle_s = worker, spool, handed, idle_s
        self._process: _Process | None = None
        self._under_way: set[_Work] = set()
        self._idle = worker.loop.after(0, lambda: None)

    def prepare(self) -> None:
        """Start the process before there is work, so that the first goal state does not wait."""
        self._start()
        self._end_when_idle()

    def run(
        self,
        job: Mapping[str, Any],
        *,
        deadline_s: float,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[str], None],
    ) -> None:
        """One piece of work (the operations in transfer.py): ``on_frame`` gets each answer, from
        the first again when it is asked once more; ``on_end`` an empty text when it ended well.
        """
        told = {**job, "deadline_s": deadline_s, "is_handed": self._handed.are_used}
        work = _Work(
            self,
            self._worker,
            msgpack.packb(told, use_bin_type=True),
            deadline_s=deadline_s,
            on_frame=on_frame,
            on_end=on_end,
        )
        self._under_way.add(work)
        self._idle.cancel()
        work.begin()

    # what a piece of work asks for

    def give(self, descriptor: int) -> str:
        """Hand a child its end of a socket; why that failed, or nothing."""
        for _ in range(TRIES):
            if self._process is None:
                error = self._start()
                if error:
                    return error
            assert self._process is not None
            if self._process.give(descriptor):
                return ""
            self.renew()
        return "transfer takes no work: see waagent.log"

    def renew(self) -> None:
        """The next piece of work goes to a fresh process; what the old one does it ends."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def connect(self, to: str, done: Callable[[socket.socket | None, str], None]) -> None:
        """A connection that was made by environment_monitor."""
        self._handed.connect(to, done)

    def is_over(self, work: _Work) -> None:
        """It has ended, in whatever way."""
        self._under_way.discard(work)
        self._end_when_idle()

    def _start(self) -> str:
        try:
            self._process = _Process(self._worker, self._spool)
        except OSError as error:
            return f"transfer cannot be started: {error.strerror}"
        return ""

    def _end_when_idle(self) -> None:
        if not self._under_way:
            self._idle.cancel()
            self._idle = self._worker.loop.after(self._idle_s, self.renew)


def _unpacker() -> Any:
    return msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        max_buffer_size=RESULT_LIMIT_BYTES,
        max_str_len=1 << 20,
        max_bin_len=4 << 20,
        max_array_len=4096,
        max_map_len=1024,
        max_ext_len=0,
    )
