"""The progress of a boot on the serial console, where the platform shows it also of a VM that
nobody can log in to: lines of the agent's log, at most 20 a boot, until the VM is provisioned.

The last lines are kept for warnings and errors, so that a failure is never cut off by good news.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from waagent.distro import kernel_files

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

CONSOLE = "/dev/console"
LINES_A_BOOT, FOR_TROUBLE = 20, 8
LOOK_S = 1.0
AT_LEAST_S = 60.0
"""A boot of a VM that is provisioned is followed for so long, and a fresh one after that."""
_COUNT = "console-lines"
_READ_BYTES = 64 * 1024
_LINE_BYTES = 200


def level_of(line: str) -> str:
    """INFO, WARNING, ERROR …; empty when it is no line of the log's form."""
    words = line.split(" ", 2)
    return words[1] if len(words) == 3 and words[0].endswith("Z") else ""


def choose(lines: list[str], already: int, since: str) -> list[str]:
    """Which of the new lines go to the console after ``already`` of this boot did; none from before
    ``since`` (UTC, as the log writes it).
    """
    chosen: list[str] = []
    for line in lines:
        level = level_of(line)
        limit = LINES_A_BOOT - (FOR_TROUBLE if level == "INFO" else 0)
        if line < since:
            continue
        if level in ("INFO", "WARNING", "ERROR") and already + len(chosen) < limit:
            chosen.append(line)
    return chosen


class Console:
    """Follows the log. Invariant: never more than LINES_A_BOOT lines a boot, restarts included."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._paths = worker.paths.configured(worker.configuration)
        self._count = self._paths.run / _COUNT  # on a tmpfs: this boot's
        self._offset = 0
        booted_at_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(booted_at_s))
        self._ends_at = worker.loop.now() + AT_LEAST_S
        self._timer = worker.loop.every(LOOK_S, self._look)

    def begin(self) -> None:
        """From where the last monitor of this boot was, else from this boot's first line."""
        said = (kernel_files.read(str(self._count)) or "").split()
        if len(said) == 2 and all(word.isdigit() for word in said):
            self._offset = int(said[0])
        else:
            self._offset = self._tail()
        self._look()

    def _tail(self) -> int:
        try:
            return max(0, self._paths.log.stat().st_size - _READ_BYTES)
        except OSError:
            return 0

    def _look(self) -> None:
        said = (kernel_files.read(str(self._count)) or "").split()
        already = int(said[1]) if len(said) == 2 and said[1].isdigit() else 0
        lines = self._new_lines()
        chosen = choose(lines, already, self._since)
        if chosen and not self._write(chosen):
            self._timer.cancel()
            return
        if lines or not said:
            self._remember(already + len(chosen))
        is_over = self._worker.loop.now() > self._ends_at and self._paths.provisioned.exists()
        if is_over or already + len(chosen) >= LINES_A_BOOT:
            self._timer.cancel()

    def _new_lines(self) -> list[str]:
        try:
            with open(self._paths.log, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset = 0  # it was rotated
                file.seek(self._offset)
                data = file.read(_READ_BYTES)
        except OSError:
            return []
        whole = data.rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        return [line.decode("utf-8", "replace") for line in whole.splitlines()]

    def _write(self, lines: list[str]) -> bool:
        text = "".join(f"waagent: {line[:_LINE_BYTES]}\r\n" for line in lines)
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self._paths.under(CONSOLE), flags)
        except OSError:
            return False  # there is none
        try:
            os.write(descriptor, text.encode("ascii", "replace"))
        except OSError:
            pass  # it is full: a console that nobody empties must not stop us
        finally:
            os.close(descriptor)
        return True

    def _remember(self, count: int) -> None:
        try:
            self._count.write_text(f"{self._offset} {count}\n", "ascii")
        except OSError:
            pass  # /run is full: it counts again after a restart
