"""A worker's log: one line a record on descriptor 2, ``2026-11-23T15:44:18.123Z INFO fabric_client[731] text``."""

from __future__ import annotations

import logging
import os
import re
import time

LINE_LIMIT = 8192
LOGGER = "waagent"  # distro/ warns through the same one
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class LineFormatter(logging.Formatter):
    """Lines of the agent's log. A traceback follows as lines of the same form, so that no line is without its owner."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._owner = f"{name}[{os.getpid()}]"

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f"{moment}.{int(record.msecs):03d}Z {record.levelname} {self._owner} "
        texts = [record.getMessage()]
        if record.exc_info:
            texts += ["| " + line for line in self.formatException(record.exc_info).splitlines()]
        return "".join(head + _CONTROL_CHARACTERS.sub(" ", text)[:LINE_LIMIT] + "\n" for text in texts)


class DescriptorHandler(logging.Handler):
    """Writes to a descriptor, so that a new log arrives by dup2; a log that takes nothing stops no worker."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def emit(self, record: logging.LogRecord) -> None:
        data = self.format(record).encode("utf-8", "backslashreplace")
        try:
            os.write(self._descriptor, data)
        except OSError:
            pass  # the disk is full or the log is gone: there is nobody left to tell, and work goes on


def open_log(name: str, *, verbose: bool, descriptor: int = 2) -> logging.Logger:
    """The logger of this process, for the worker ``name``."""
    log = logging.getLogger(LOGGER)
    for handler in list(log.handlers):
        log.removeHandler(handler)
    handler = DescriptorHandler(descriptor)
    handler.setFormatter(LineFormatter(name))
    log.addHandler(handler)
    log.propagate = False
    set_verbose(log, verbose)
    return log


def set_verbose(log: logging.Logger, verbose: bool) -> None:
    """Decisions with their inputs too, or changes only."""
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
