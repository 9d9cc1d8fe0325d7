"""Children of a long-lived process: one that inherits nothing by accident, and all that ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from waagent.distro import process_tree

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "MALLOC_ARENA_MAX": "1",
}
"""For glibc (mallopt(3)): fixed, or messages of 1 MiB are kept for ever once one was freed; other
allocators do not look.
"""


def exec_alone(argv: list[str], descriptors: dict[int, int]) -> int:
    """Start a program that inherits ``descriptors`` (its number: ours) and descriptor 0, nothing
    else; its pid. Raises OSError.
    """
    moves = [(os.POSIX_SPAWN_DUP2, ours, its) for its, ours in sorted(descriptors.items())]
    default = [signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE]
    return os.posix_spawn(
        argv[0], argv, {**os.environ, **ALLOCATOR}, file_actions=moves, setsigdef=default
    )


def exec_into_memory(argv: list[str], log: int) -> tuple[int, int]:
    """Start a program that writes its answer into a memory file, and complaints to ``log``; its pid
    and the file. Raises OSError.
    """
    file = os.memfd_create("answer", os.MFD_CLOEXEC)
    try:
        return exec_alone(argv, {1: file, 2: log}), file
    except OSError:
        os.close(file)
        raise


def reap() -> list[tuple[int, int]]:
    """Pid and status (negative: signal) of every child of ours that ended, orphans that fell to us
    included.
    """
    ended: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):  # there is no child at all
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def redirect_standard(log: int) -> None:
    """Descriptor 0 becomes /dev/null, 1 and 2 become ``log``; all three are inherited."""
    with open("/dev/null", "rb") as null:
        for descriptor, source in ((0, null.fileno()), (1, log), (2, log)):
            os.dup2(source, descriptor)


def kill_recorded(recorded: Iterable[tuple[int | None, int | None]]) -> None:
    """SIGKILL those of ``recorded`` (pid and start ticks, of this boot) that are still the same
    processes.
    """
    process_tree.signal_all(
        [pid for pid, ticks in recorded if pid and ticks and process_tree.is_alive(pid, ticks)],
        signal.SIGKILL,
    )
