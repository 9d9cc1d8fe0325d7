"""One process of our own Python and the pipes to it: fed, read, killed and reaped from the loop,
never waited for.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from waagent.distro import our_python, programs
from waagent.distro.programs import NULL, PIPE
from waagent.distro.signal_names import signal_name

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_CHUNK_BYTES = 64 * 1024


class PythonChild:
    """A process and its stdin and stdout. Invariant: ``on_end`` is called once, after everything
    that it said was given to ``on_data``; then nothing of it runs and no descriptor is open.
    """

    def __init__(
        self,
        worker: Worker,
        module: str,
        *,
        title: str,
        on_data: Callable[[bytes], None],
        on_end: Callable[[str], None],
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        """``module`` has a ``main()``; ``title`` is what `ps` shows.

        ``on_end`` gets a reason, empty when the process ended with status 0.
        """
        self._worker, self._on_data, self._on_end = worker, on_data, on_end
        argv = our_python.argv(module, title=title, groups=worker.place)
        self._process = programs.start(argv, environment, PIPE, PIPE, NULL)
        worker.place_tool(self._process.pid)
        self._stdin, self._stdout, _ = self._process.streams
        self._unsent = bytearray()
        self._is_input_over = self._is_output_over = False
        self._reason = ""
        self._status: int | None = None
        worker.loop.on_readable(self._stdout, self._read)
        worker.loop.on_exit(self._process.pid, self._exited)

    def write(self, data: bytes) -> None:
        """Send ``data`` as soon as the process takes it; nothing happens when it has ended."""
        if self._process.streams[0] >= 0:
            if not self._unsent:
                self._worker.loop.on_writable(self._stdin, self._send)
            self._unsent += data

    def close_input(self) -> None:
        """Nothing more will be written."""
        self._is_input_over = True
        if not self._unsent:
            self._close_stdin()

    def kill(self, reason: str) -> None:
        """End it, and all in its process group; ``on_end`` gets ``reason``."""
        self._reason = self._reason or reason
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself in this moment
                os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self) -> None:
        try:
            sent = os.write(self._stdin, self._unsent[:_CHUNK_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._close_stdin()  # it has ended; its end is told by stdout
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._worker.loop.forget_writable(self._stdin)
            if self._is_input_over:
                self._close_stdin()

    def _close_stdin(self) -> None:
        if self._process.streams[0] >= 0:
            self._unsent.clear()
            self._worker.loop.forget(self._stdin)
            self._process.close_stream(0)

    def _read(self) -> None:
        try:
            data = os.read(self._stdout, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if data:
            self._on_data(data)
            return
        self._worker.loop.forget(self._stdout)
        self._is_output_over = True
        self._finish_when_over()

    def _exited(self, status: int) -> None:
        self._status = self._process.status = status
        self._finish_when_over()

    def _finish_when_over(self) -> None:
        """The process is gone and all that it said was read, in whatever order that happened."""
        if self._status is None or not self._is_output_over:
            return
        self._close_stdin()
        self._process.close()
        if self._status < 0:
            self._reason = self._reason or f"was ended by signal {signal_name(-self._status)}"
        elif self._status:
            self._reason = self._reason or f"ended with status {self._status}"
        self._on_end(self._reason)
