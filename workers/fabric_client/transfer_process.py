"""The transfer process: started for one piece of work, spoken to in msgpack, watched by a deadline,
never waited for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

from waagent.distro import our_python, programs
from waagent.distro.programs import PIPE

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

_CHUNK_BYTES = 32 * 1024
RESULT_LIMIT_BYTES = 12 * 1024 * 1024
SPARE_S = 20.0  # a process that nobody has given work by then is ended
_FAREWELL_S = 2.0  # between the end of its output and its own

Frame = dict[str, Any]


class Helper:
    """One process and its pipes. Invariant: after ``on_end`` nothing of it runs and no descriptor
    is open.
    """

    def __init__(self, worker: Worker, spool: Path) -> None:
        self._worker = worker
        self._process = programs.start(
            our_python.argv("waagent.workers.fabric_client.transfer", title="transfer"),
            {"LC_ALL": "C", "PATH": "/usr/bin:/bin", "TMPDIR": str(spool)},
            PIPE,
            PIPE,
            session=False,
        )
        worker.place_tool(self._process.pid)
        self._stdin, self._stdout, _ = self._process.streams
        self._left = memoryview(b"")
        self._unpacker = _unpacker()
        self._seen_bytes = 0
        self._error = ""
        self._on_frame: Callable[[Frame], None] = lambda frame: None
        self._on_end: Callable[[str], None] = lambda error: None
        self._status: int | None = None
        self._is_at_end = False
        worker.loop.on_exit(self._process.pid, self._exited)
        worker.loop.on_readable(self._stdout, self._read)
        self._timer = worker.loop.after(SPARE_S, self._expire)

    @property
    def is_running(self) -> bool:
        """False once it has ended, for whatever reason."""
        return self._status is None and not self._is_at_end and not self._error

    def give(
        self,
        job: Mapping[str, Any],
        *,
        deadline_s: float,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[str], None],
    ) -> None:
        """Hand over the work; ``on_end`` gets an empty text when the process ended well. Once."""
        self._on_frame, self._on_end = on_frame, on_end
        self._timer.cancel()
        self._timer = self._worker.loop.after(deadline_s, self._expire)
        self._left = memoryview(msgpack.packb({**job, "deadline_s": deadline_s}, use_bin_type=True))
        self._worker.loop.on_writable(self._stdin, self._write)

    def _write(self) -> None:
        try:
            self._left = self._left[os.write(self._stdin, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = memoryview(b"")  # it has ended; its end is told by stdout
        if not self._left:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._process.streams[0] >= 0:
            self._worker.loop.forget(self._stdin)
            self._process.close_stream(0)

    def _read(self) -> None:
        try:
            data = os.read(self._stdout, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        self._seen_bytes += len(data)
        try:
            if self._seen_bytes > RESULT_LIMIT_BYTES:
                raise ValueError(f"its result has more than {RESULT_LIMIT_BYTES} bytes")
            self._unpacker.feed(data)
            frames = [frame for frame in self._unpacker if isinstance(frame, dict)]
        except (ValueError, msgpack.UnpackException) as error:
            self._stop(f"transfer: {error}")
            return
        for frame in frames:
            self._on_frame(frame)

    def _expire(self) -> None:
        self._stop("transfer took too long and was ended")

    def _stop(self, error: str) -> None:
        self._error = error
        if self._status is None:
            os.kill(self._process.pid, signal.SIGKILL)  # its stdout ends, and with it the reader

    def _end(self) -> None:
        self._worker.loop.forget(self._stdout)
        self._timer.cancel()
        self._close_stdin()
        self._process.close()
        self._is_at_end = True
        if self._status is None:
            self._timer = self._worker.loop.after(_FAREWELL_S, self._expire)
        self._finish_when_over()

    def _exited(self, status: int) -> None:
        self._status = self._process.status = status
        self._finish_when_over()

    def _finish_when_over(self) -> None:
        """The process is gone and all that it said was read, in whatever order that happened."""
        if self._status is None or not self._is_at_end:
            return
        self._timer.cancel()
        if not self._error and self._status:
            self._error = (
                f"transfer ended with {'signal' if self._status < 0 else 'status'}"
                f" {abs(self._status)}"
            )
        self._on_end(self._error)


class Helpers:
    """Starts helpers; keeps one ready so that the first goal state does not wait for its start (0.1
    s).
    """

    def __init__(self, worker: Worker, spool: Path) -> None:
        self._worker, self._spool = worker, spool
        self._spare: Helper | None = None

    def prepare(self) -> None:
        """Start one for the next piece of work."""
        self._spare = Helper(self._worker, self._spool)

    def run(
        self,
        job: Mapping[str, Any],
        *,
        deadline_s: float,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[str], None],
    ) -> None:
        """One piece of work (spec: the operations in transfer.py)."""
        helper, self._spare = self._spare, None
        if helper is None or not helper.is_running:
            helper = Helper(self._worker, self._spool)
        helper.give(job, deadline_s=deadline_s, on_frame=on_frame, on_end=on_end)


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
