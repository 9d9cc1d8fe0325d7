"""Starts the daemon again when it dies, where no init system does: LOCK ARGV...
Standard library only.

It ends when the daemon was told to stop (status 0) or when SIGTERM tells the guardian, and there is
never a second one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time

SHORT_RUN_S = 5.0
LONGEST_PAUSE_S = 60.0
REPLACED = 75  # a new build is on disk: start it at once
WAITED_FOR = {signal.SIGTERM, signal.SIGCHLD}


def guard(lock: str, argv: list[str]) -> None:
    """Run ``argv`` until it ends well."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)
    short_runs = 0
    while True:
        started = time.monotonic()
        status, is_told = wait(os.posix_spawn(argv[0], argv, os.environ, setsigmask=()))
        if is_told or status == 0:
            return
        short_runs = (
            0 if status == REPLACED or time.monotonic() - started > SHORT_RUN_S else short_runs + 1
        )
        if short_runs and signal.sigtimedwait(
            {signal.SIGTERM}, min(LONGEST_PAUSE_S, 0.25 * 2 ** min(short_runs - 1, 10))
        ):
            return


def wait(child: int) -> tuple[int, bool]:
    """Wait for the end of ``child`` and pass SIGTERM on; its exit status (-1: killed), and whether
    we were told to stop.
    """
    is_told = False
    while True:
        if signal.sigwait(WAITED_FOR) == signal.SIGTERM:
            is_told = True
            os.kill(child, signal.SIGTERM)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1, is_told


def main() -> None:
    """Guard what the command line names."""
    guard(sys.argv[1], sys.argv[2:])
