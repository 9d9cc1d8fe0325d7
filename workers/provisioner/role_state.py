"""Tells Role.StateConsumer that this VM is about to be called Ready; nobody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent.distro.operations import role_programs
from waagent.distro.operations.launch import OperationError
from waagent.distro.paths import Paths

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

OPTION = "Role.StateConsumer"
_STATE = "Ready"


def tell_consumer(worker: Worker, paths: Paths) -> None:
    """Start the program with `Ready`; what keeps it from running is a warning."""
    program = worker.configuration.get(OPTION)
    if not isinstance(program, str) or not program:
        return
    try:
        role_programs.run_program(paths, OPTION, program, _STATE)
    except (role_programs.Untrusted, OperationError, OSError) as error:
        worker.log.warning("%s was not run: %s", OPTION, error)
        return
    worker.log.info("%s was started: %s %s", OPTION, program, _STATE)
