"""The configuration read anew: by a process of its own, whose end brings it."""

from __future__ import annotations

import os

from waagent.distro import children, our_python
from waagent.protocol.configuration.supervisor_settings import Settings, take_settings


def reader_argv(*arguments: str) -> list[str]:
    """The command line of the process: root prefix, main file, verbose or not."""
    module = "waagent.supervisor.commands.configuration_reader"
    return our_python.argv(module, *arguments, title="configuration reader")


class Reading:
    """Invariant: at most one process is waited for, the newest; what an older one reads may be out
    of date.
    """

    def __init__(self, argv: list[str], log: int) -> None:
        """``argv`` writes the settings to its descriptor 1, and complaints to ``log``."""
        self._argv, self._log = argv, log
        self.pid, self._file = 0, -1

    def start(self) -> None:
        """Begin. Raises OSError (no process left …), and nothing is waited for."""
        if self.pid:
            os.close(self._file)
        self.pid = 0
        self.pid, self._file = children.exec_into_memory(self._argv, self._log)

    def take(self) -> Settings:
        """What the process wrote before it ended. Raises ValueError when that was nothing, or not
        whole.
        """
        self.pid = 0
        return take_settings(self._file)
