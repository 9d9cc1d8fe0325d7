"""A program that we start and watch: by `posix_spawn`, since Python code between fork and exec is
unsafe beside libzmq's threads.

`subprocess` is not used because it is 0.6 MiB in each process that stays.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Mapping
from typing import Any

from waagent.distro.clock import Deadline

NULL, PIPE, OURS = -1, -2, -3
"""Instead of a descriptor: /dev/null, the other end of a pipe (`Program.streams`), our own."""
_DEFAULT_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGCHLD", "SIGTERM", "SIGHUP", "SIGINT", "SIGPIPE", "SIGXFSZ", "SIGUSR1")
    if hasattr(signal, name)
)
_TICK_S = 0.01


class Program:
    """One that was started. Invariant: it is waited for by its pid, once; pipes are closed by
    `close`, `close_stream` or never.
    """

    def __init__(self, pid: int, streams: list[int]) -> None:
        self.pid = pid
        self.status: int | None = None
        """How it ended, once that is known; negative: by this signal."""
        self.streams = streams
        """Our ends of stdin, stdout and stderr, not blocking; -1 where there is no pipe (any more).
        """

    def poll(self) -> int | None:
        """``status``, looked at now. Who let the child be reaped by somebody else gets 0."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.status = 0
            else:
                self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def wait(self, seconds: float) -> int | None:
        """``status``, at most ``seconds`` from now; None when it still runs."""
        deadline = Deadline(seconds, time.monotonic())
        while self.poll() is None and not deadline.has_passed(time.monotonic()):
            time.sleep(deadline.pause_s(time.monotonic(), _TICK_S))
        return self.status

    def kill(self) -> None:
        """SIGKILL for it alone; harmless once it was reaped."""
        if self.status is None:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def close_stream(self, number: int) -> None:
        """Close our end of stdin (0), stdout or stderr."""
        if self.streams[number] >= 0:
            descriptor, self.streams[number] = self.streams[number], -1
            os.close(descriptor)

    def close(self) -> None:
        """Close all our ends."""
        for number in range(len(self.streams)):
            self.close_stream(number)


def start(
    argv: list[str],
    environment: Mapping[str, str],
    stdin: int = NULL,
    stdout: int = NULL,
    stderr: int = OURS,
    *,
    session: bool = True,
) -> Program:
    """Start ``argv`` in our folder, with signals as a shell has them and no descriptor but the
    three named.

    ``session``: as the leader of its own (a group of its own where the system cannot). Raises
    OSError when it cannot be executed.
    """
    ours, theirs = [-1, -1, -1], []
    actions: list[tuple[Any, ...]] = []
    try:
        for number, given in enumerate((stdin, stdout, stderr)):
            if given == PIPE:
                reading, writing = os.pipe()
                own, given = (writing, reading) if number == 0 else (reading, writing)
                ours[number] = own
                theirs.append(given)
                os.set_blocking(own, False)
            if given == NULL:
                actions.append((os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0))
            elif given != OURS:
                actions.append((os.POSIX_SPAWN_DUP2, given, number))
        keep_ours()
        return Program(_spawn(argv, environment, actions, session), ours)
    except BaseException:
        for descriptor in ours:
            if descriptor >= 0:
                os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)


def keep_ours() -> None:
    """Have no descriptor above 2 inherited by a program: what was received from another process,
    and libraries', may be so.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # behind a fence, or not Linux
        numbers = list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)))
    for number in numbers:
        if number > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(number, False)


def _spawn(
    argv: list[str], environment: Mapping[str, str], actions: list[tuple[Any, ...]], session: bool
) -> int:
    spawn = os.posix_spawn if "/" in argv[0] else os.posix_spawnp
    if session:
        try:
            return spawn(
                argv[0],
                argv,
                environment,
                file_actions=actions,
                setsigdef=_DEFAULT_SIGNALS,
                setsigmask=(),
                setsid=True,
            )
        except NotImplementedError:
            return spawn(
                argv[0],
                argv,
                environment,
                file_actions=actions,
                setsigdef=_DEFAULT_SIGNALS,
                setsigmask=(),
                setpgroup=0,
            )
    return spawn(
        argv[0], argv, environment, file_actions=actions, setsigdef=_DEFAULT_SIGNALS, setsigmask=()
    )
