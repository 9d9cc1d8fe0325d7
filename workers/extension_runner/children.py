"""Children of this worker that it does not wait for: started, fed, read and killed from the
loop.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent.distro import our_python, programs
from waagent.distro.programs import NULL, PIPE

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024
REAP_S = 0.02
_CHUNK_BYTES = 32 * 1024
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class Child:
    """One exec'd Python module of ours. Invariant: ``done`` is called exactly once, from the loop,
    unless `kill` was called.
    """

    def __init__(
        self,
        worker: Worker,
        module: str,
        data: bytes,
        *,
        deadline_s: float,
        done: Callable[[bytes, str], None],
    ) -> None:
        """``module`` has a ``main()`` that reads stdin to its end; ``done`` gets stdout and a
        reason, empty when all went well.
        """
        self._worker, self._done = worker, done
        self._output = bytearray()
        self._reason = ""
        title = f"{worker.name} {module.rpartition('.')[2]}"
        argv = our_python.argv(module, title=title, groups=worker.place)
        self._process = programs.start(argv, _ENVIRONMENT, PIPE, PIPE, NULL)
        self._stdin, self._stdout, _ = self._process.streams
        self._left = memoryview(data)
        worker.on_readable(self._stdout, self._read)
        self._deadline = worker.after(deadline_s, self._expire)
        self._write()
        if self._left:
            worker.on_writable(self._stdin, self._write)

    def kill(self) -> None:
        """End it without a word."""
        self._done = _nobody
        self._expire()

    def _write(self) -> None:
        try:
            while self._left:
                self._left = self._left[os.write(self._stdin, self._left[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._left = memoryview(b"")  # it ended early; its answer or its absence says why
        self._close_input()

    def _close_input(self) -> None:
        if self._process.streams[0] >= 0:
            self._worker.forget(self._stdin)
            self._process.close_stream(0)

    def _read(self) -> None:
        try:
            chunk = os.read(self._stdout, _CHUNK_BYTES)
        except BlockingIOError:
            return
        self._output += chunk
        if len(self._output) > OUTPUT_LIMIT_BYTES:
            self._reason = "answered too much"
            self._kill_group()
        if not chunk:
            self._worker.forget(self._stdout)
            self._reap()

    def _expire(self) -> None:
        if self._process.poll() is None:
            self._reason = self._reason or "took too long"
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended by itself in this moment

    def _reap(self) -> None:
        status = self._process.poll()
        if status is None:
            self._worker.after(REAP_S, self._reap)
            return
        self._deadline.cancel()
        self._close_input()
        self._process.close()
        if status != 0 and not self._reason:
            self._reason = f"ended with status {status}"
        done, self._done = self._done, _nobody
        done(bytes(self._output), self._reason)


def _nobody(_output: bytes, _reason: str) -> None:
    """Nobody waits for this answer any more."""
