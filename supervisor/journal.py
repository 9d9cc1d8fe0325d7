"""The supervisor's own log lines: to the log file before READY, afterwards to journald and through
environment_monitor.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

from waagent.distro import sockets
from waagent.protocol import control

RING_LINES = 256  # kept while environment_monitor is away
_STACKS_KEPT, _STACK_CHARACTERS = 8, 8000
_BATCH_LINES = 16  # one packet; a line is cut at _LINE_CHARACTERS
_LINE_CHARACTERS = 1000
_PRIORITY = {"error": 3, "warning": 4, "info": 6}


class Journal:
    """Invariant: once ``direct`` is False nothing here touches a disk; what does not fit into the
    ring is counted.
    """

    def __init__(self, log: int, journald: socket.socket | None) -> None:
        self.log, self._journald = log, journald
        self.direct, self.lost = True, 0
        self._ring: deque[str] = deque(maxlen=RING_LINES)
        self._stacks: deque[bytes] = deque(maxlen=_STACKS_KEPT)

    def write(self, level: str, worker: str, text: str) -> None:
        """One line; ``worker`` is whom it is about, empty for the supervisor itself."""
        said = control.clean(f"{worker}: {text}" if worker else text)[:_LINE_CHARACTERS]
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        who = f"supervisor[{os.getpid()}]"
        line = f"{stamp}.{int(now * 1000) % 1000:03d}Z {level.upper()} {who} {said}"
        about = {"SYSLOG_IDENTIFIER": "waagent", "WAAGENT_WORKER": worker or "supervisor"}
        sockets.send_fields(self._journald, MESSAGE=said, PRIORITY=_PRIORITY[level], **about)
        if self.direct:
            self._append([line])
        else:
            self.lost += len(self._ring) == RING_LINES
            self._ring.append(line)

    def keep_stack(self, worker: str, stack: str) -> None:
        """The stack of a hung worker, for environment_monitor to write."""
        self._stacks.append(control.pack("stack", worker=worker, text=stack[:_STACK_CHARACTERS]))

    def flush(self, send: Callable[[bytes], bool]) -> None:
        """Hand stacks and ring to environment_monitor by ``send``, which says whether a packet
        fitted.
        """
        while self._stacks and send(self._stacks[0]):
            self._stacks.popleft()
        while self._ring and send(control.pack("log", lines=list(self._ring)[:_BATCH_LINES])):
            for _ in range(min(_BATCH_LINES, len(self._ring))):
                self._ring.popleft()
        if self.lost and not self._ring:
            lost, self.lost = self.lost, 0
            self.write("warning", "", f"{lost} lines lost while environment_monitor was away")

    def write_directly(self) -> None:
        """From now on, and with what the ring holds, to the log file: before READY and after the
        last worker.
        """
        self.direct = True
        self._append(self._ring)
        self._ring.clear()

    def _append(self, lines: Iterable[str]) -> None:
        # the disk is full: supervision goes on without its lines
        with contextlib.suppress(OSError):
            os.write(self.log, "".join(f"{line}\n" for line in lines).encode())
