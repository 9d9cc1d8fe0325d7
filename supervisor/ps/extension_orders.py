"""`waagent-ps extensions stop NAME` and `reset NAME`."""

from __future__ import annotations

import re
import time

from waagent.distro import files
from waagent.distro.operations import resets, stopping
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.protocol.operations_file import RUNNING
from waagent.supervisor.ps import gather

DONE, FAILED, NONE_SUCH, NOT_ANSWERING = 0, 1, 2, 3
STOP_S, RESET_S = 10.0, 20.0
RUNNER = "extension_runner"
_ID = re.compile(r"[0-9a-f]{32}")
_POLL_S = 0.05


class Said(Exception):
    """It was not done; the text says why, ``status`` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def stop(paths: Paths, name: str) -> list[str]:
    """End what runs of handler ``name``; a sentence for each. Raises Said."""
    rows = gather.take_snapshot(paths, with_memory=False).operations.rows
    mine = [row for row in rows if row.handler.lower() == name.lower()]
    running = [row for row in mine if row.state == RUNNING and _ID.fullmatch(row.name)]
    if not mine:
        raise Said(f"no handler {name}: see waagent-ps extensions", NONE_SUCH)
    if not running:
        waits = next((row.waiting_for for row in mine if row.waiting_for), "")
        why = f"it waits: {waits}" if waits else "its last operation has ended"
        raise Said(f"nothing of {name} runs: {why}: none needed", NONE_SUCH)
    said = []
    for row in running:
        try:
            ended = stopping.stop(paths.operations / row.name, deadline_s=STOP_S)
        except (OSError, files.FileError) as error:
            raise Said(f"{row.operation} of {name} is not stopped: {error}", FAILED) from error
        if ended is False:
            raise Said(
                f"{row.operation} of {name} does not end within {STOP_S:g} s: a process hangs in"
                " the kernel: see ps -eo pid,stat,wchan,cmd",
                FAILED,
            )
        if ended:
            said.append(f"stopped {row.operation} of {row.handler} {row.version}, pid {row.pid}")
    if not said:
        raise Said(f"nothing of {name} runs any more: none needed", NONE_SUCH)
    return said


def reset(paths: Paths, name: str) -> list[str]:
    """Have the failures of handler ``name`` forgotten, so that this goal state tries again. Raises
    Said.
    """
    if not resets.has_journal(paths.operations, name):
        raise Said(f"no handler {name}: see waagent-ps extensions", NONE_SUCH)
    try:
        request = resets.ask(paths.operations, name)
    except OSError as error:
        raise Said(f"{name} is not reset: {error}: free space there", FAILED) from error
    try:
        answer = gather.request(paths, "restart", name=RUNNER)
    except (OSError, control.ControlError) as error:
        raise Said(
            f"{name} is reset as soon as the agent runs: {paths.control_socket}, {error}:"
            " see waagent-ps",
            NOT_ANSWERING,
        ) from error
    if answer.get("type") in ("refused", "error"):
        why = answer.get("reason") or answer.get("text") or ""
        raise Said(f"{name} is not reset yet: {RUNNER} is not restarted: {why}", FAILED)
    until = time.monotonic() + RESET_S
    while request.exists():
        if time.monotonic() > until:
            raise Said(
                f"{name} is not reset after {RESET_S:g} s: {RUNNER} has not looked: see waagent-ps",
                FAILED,
            )
        time.sleep(_POLL_S)
    return [f"reset {name}: what failed in this goal state is tried again"]
