"""The supervisor's own log lines: to the log file before READY, afterwards to journald and through environment_monitor."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from waagent.protocol import control

RING_LINES = 256  # kept while environment_monitor is away
_BATCH_LINES = 16  # one packet; a line is cut at _LINE_CHARACTERS
_LINE_CHARACTERS = 1000
_PRIORITY = {"error": 3, "warning": 4, "info": 6, "debug": 7}


class Journal:
    """Invariant: once ``direct`` is False nothing here touches a disk; what does not fit into the ring is counted."""

    def __init__(self, log: int, journald: Path, verbose: bool) -> None:
        """``log`` is the open log file, ``journald`` the socket of journald, used where it exists."""
        self.log, self.verbose, self.direct, self.lost = log, verbose, True, 0
        self._ring: deque[str] = deque(maxlen=RING_LINES)
        self._journald = _connected(journald)

    def write(self, level: str, worker: str, text: str) -> None:
        """One line; ``worker`` is whom it is about, empty for the supervisor itself."""
        if level == "debug" and not self.verbose:
            return
        said = control.clean(f"{worker}: {text}" if worker else text)[:_LINE_CHARACTERS]
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = f"{stamp}.{int(now * 1000) % 1000:03d}Z {level.upper()} supervisor[{os.getpid()}] {said}"
        if self._journald is not None:
            self._send_native(level, worker, said)
        if self.direct:
            _append(self.log, [line])
        else:
            self.lost += len(self._ring) == RING_LINES
            self._ring.append(line)

    def flush(self, send: Callable[[bytes], bool]) -> None:
        """Hand the ring to environment_monitor by ``send``, which says whether a packet fitted."""
        while self._ring:
            lines = [self._ring[index] for index in range(min(_BATCH_LINES, len(self._ring)))]
            if not send(control.pack("log", lines=lines)):
                return
            for _ in lines:
                self._ring.popleft()
        if self.lost:
            lost, self.lost = self.lost, 0
            self.write("warning", "", f"{lost} lines lost while environment_monitor was away")

    def write_directly(self) -> None:
        """From now on, and with what the ring holds, to the log file: before READY and after the last worker."""
        self.direct = True
        _append(self.log, self._ring)
        self._ring.clear()

    def _send_native(self, level: str, worker: str, text: str) -> None:
        fields = {"MESSAGE": text, "PRIORITY": _PRIORITY[level], "SYSLOG_IDENTIFIER": "waagent", "WAAGENT_WORKER": worker or "supervisor"}
        try:
            if self._journald is not None:
                self._journald.send("".join(f"{key}={value}\n" for key, value in fields.items()).encode(), socket.MSG_DONTWAIT)
        except OSError:
            pass  # journald restarts or is behind: the file has the line too


def _append(log: int, lines: deque[str] | list[str]) -> None:
    try:
        os.write(log, "".join(f"{line}\n" for line in lines).encode())
    except OSError:
        pass  # the disk is full: supervision goes on without its lines


def _connected(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection
