"""Children of a long-lived process: one that inherits nothing by accident, and all that ended."""

from __future__ import annotations

import contextlib
import os
import signal


def exec_alone(argv: list[str], descriptors: dict[int, int]) -> int:
    """Start a program that inherits ``descriptors`` (its number: ours) and descriptor 0, nothing else; its pid."""
    moves = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in sorted(descriptors.items())]
    default = [signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE]
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=moves, setsigdef=default)


def reap() -> list[tuple[int, int]]:
    """Pid and status (negative: signal) of every child of ours that ended, orphans that fell to us included."""
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):  # there is no child at all
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended
