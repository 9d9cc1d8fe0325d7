"""A process's log: one line a record on a descriptor, ``2026-11-23T15:44:18.123Z INFO
fabric_client[731] text``.

`logging` is not used because it is 1 MiB in each process that stays.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable

LINE_LIMIT = 8192
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Log:
    """Writes records. What it is told is said in the arguments of `%`, formatted only when it is
    written.
    """

    def __init__(self, owner: str, *, verbose: bool = False, descriptor: int = 2) -> None:
        """``descriptor``: a new log arrives there by dup2."""
        self.owner = owner
        self.verbose = verbose
        """Decisions with their inputs too, or changes only."""
        self.also: Callable[[str, str], None] | None = None
        """Who is told level and text of each record besides the file: the journal."""
        self._descriptor = descriptor

    def debug(self, text: str, *values: object) -> None:
        """A decision, with its inputs."""
        if self.verbose:
            self._write("DEBUG", text, values)

    def info(self, text: str, *values: object) -> None:
        """A change."""
        self._write("INFO", text, values)

    def warning(self, text: str, *values: object) -> None:
        """What is wrong and what the agent does meanwhile."""
        self._write("WARNING", text, values)

    def error(self, text: str, *values: object) -> None:
        """What is wrong and cannot go on without somebody."""
        self._write("ERROR", text, values)

    def exception(self, text: str, *values: object) -> None:
        """`error`, and the traceback of the exception that is being handled."""
        import traceback  # 0.2 MiB, for a worker's last words

        self._write("ERROR", text, values, traceback.format_exception(*sys.exc_info()))

    def _write(
        self, level: str, text: str, values: tuple[object, ...], trace: list[str] | tuple[()] = ()
    ) -> None:
        said = text % values if values else text
        if self.also is not None:
            self.also(level, said)
        data = "".join(lines(level, f"{self.owner}[{os.getpid()}]", said, trace))
        try:
            os.write(self._descriptor, data.encode("utf-8", "backslashreplace"))
        except OSError:
            # the disk is full or the log is gone: there is nobody left to tell, and work goes on
            pass


def lines(level: str, owner: str, text: str, trace: list[str] | tuple[()] = ()) -> list[str]:
    """A record as it is written. A traceback follows in lines of the same form, so that no line is
    without its owner.
    """
    at = time.time()
    head = (
        f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03d}Z {level}"
        f" {owner} "
    )
    texts = [text, *("| " + line for part in trace for line in part.splitlines())]
    return [head + _CONTROL_CHARACTERS.sub(" ", line)[:LINE_LIMIT] + "\n" for line in texts]


PROCESS = Log("waagent")
"""For rooms below the workers. A worker puts its name into it."""
