"""Starts shims without waiting for any of them, and says when an operation should be looked at.

A shim holds the other end of a pipe until its exit record is there. So the end of an operation that
this runner started is known at once; one that an earlier runner started has to be looked at from
time to time.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro import programs
from waagent.distro.operations import launch
from waagent.distro.operations.launch import OperationError
from waagent.distro.operations.shim import plan as shim_plan

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

_NO_PLAN = (KeyError, TypeError, ValueError, shim_plan.PlanError)
"""What a plan of another kind brings."""
AT_ONCE = 8  # shims that start at the same time; more would only share the processors


class Launcher:
    """Invariant: ``look`` is called, from the loop, when an operation's shim has ended or was not
    started.
    """

    def __init__(self, worker: Worker, look: Callable[[str], None]) -> None:
        """``look`` gets the id of the operation."""
        self._worker, self._look = worker, look
        self._waiting: deque[Path] = deque()
        self._starting: set[str] = set()
        self._pipes: dict[str, int] = {}

    def start(self, folder: Path) -> None:
        """Start the shim of the operation in ``folder``, now or when others have started."""
        self._waiting.append(folder)
        self._start_next()

    def knows(self, identity: str) -> bool:
        """`look` will be called for this operation; nobody has to look at it before."""
        return (
            identity in self._pipes
            or identity in self._starting
            or any(folder.name == identity for folder in self._waiting)
        )

    def _start_next(self) -> None:
        while self._waiting and len(self._starting) < AT_ONCE:
            folder = self._waiting.popleft()
            self._starting.add(folder.name)
            self._spawn(folder)

    def _spawn(self, folder: Path, *, is_second_try: bool = False) -> None:
        through_systemd = False
        reader, writer = os.pipe()
        try:
            planned = launch.read_plan(folder)
            through_systemd = bool(planned.get("systemd")) and not is_second_try
            program = launch.spawn_shim(
                folder,
                planned,
                python=sys.executable,
                through_systemd=through_systemd,
                until_end=writer,
            )
        except (OperationError, OSError, *_NO_PLAN) as error:
            os.close(reader)
            self._failed(folder, f"{type(error).__name__}: {error}", again=through_systemd)
            return
        finally:
            os.close(writer)
        self._watch_start(program, folder, reader, through_systemd=through_systemd)

    def _watch_start(
        self, program: programs.Program, folder: Path, reader: int, *, through_systemd: bool
    ) -> None:
        # systemd-run waits for D-Bus; killing it is harmless: a shim that got through has the lock
        deadline = self._worker.loop.after(launch.LAUNCH_S, program.kill)

        def first_process_ended(status: int) -> None:
            program.status = status
            deadline.cancel()
            if status == 0:
                self._starting.discard(folder.name)
                self._pipes[folder.name] = reader
                self._worker.loop.on_readable(reader, lambda: self._ended(folder.name))
                self._start_next()
            else:
                os.close(reader)
                reason = str(launch.not_started(folder, f"status {status}"))
                self._failed(folder, reason, again=through_systemd)

        self._worker.loop.on_exit(program.pid, first_process_ended)

    def _failed(self, folder: Path, reason: str, *, again: bool) -> None:
        """A scope that systemd does not make is done without; else its owner has to look."""
        self._worker.log.warning("shim was not started id=%s: %s", folder.name, reason)
        if again:
            self._spawn(folder, is_second_try=True)
            return
        self._starting.discard(folder.name)
        self._worker.loop.after(0, lambda: self._look(folder.name))
        self._worker.loop.after(0, self._start_next)

    def _ended(self, identity: str) -> None:
        reader = self._pipes.pop(identity)
        self._worker.loop.forget(reader)
        os.close(reader)
        self._look(identity)
