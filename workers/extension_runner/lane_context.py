"""What all lanes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import GoalStateSummary, HandlerGoal
from waagent.workers.extension_runner.dependencies import Verdict
from waagent.workers.extension_runner.file_processes import Done, FileProcesses
from waagent.workers.extension_runner.tracking import Tracking

if TYPE_CHECKING:
    from waagent.workers.extension_runner.lane import Lane
    from waagent.workers.runtime import Worker


HOUSE_S = 20.0  # a slow disk's fsyncs; a mount that hangs costs its own handler this long


def _nobody_waits(answer: Any, reason: str) -> None:
    """For jobs that nothing depends on."""


class Goal:
    """What the runner knows for all lanes; it changes in place."""

    def __init__(self) -> None:
        self.summary: GoalStateSummary | None = None
        self.is_enabled = True
        """Extensions.Enabled."""

    @property
    def endpoint(self) -> str:
        """The WireServer's address; empty before there is a goal state."""
        return self.summary.endpoint if self.summary is not None else ""


class LaneContext(Record):
    """What a lane is given."""

    worker: Worker
    client: Any
    """Of the bus, for packages."""
    operations: Tracking
    file_processes: FileProcesses
    paths: Paths
    boot_id: str
    now: Callable[[], float]
    wall_ns: Callable[[], int]
    attempt: Callable[[Lane, Callable[[], None]], None]
    """Makes the call; what it raises parks the lane and ends nobody else. Whatever a lane does
    later goes through it.
    """
    changed: Callable[[Lane], None]
    """Somebody should look at this lane's reports again."""
    may_start: Callable[[HandlerGoal, str], Verdict]
    """Asked before INSTALL and ENABLE of an extension."""
    goal: Goal

    def in_house(
        self,
        name: str,
        job: Mapping[str, Any],
        done: Done = _nobody_waits,
        deadline_s: float = HOUSE_S,
    ) -> None:
        """Have ``job`` done in the folders of the handler ``name`` by a process of its own: the
        runner itself touches no path that a handler could have mounted something on.
        """
        self.file_processes.run(
            {
                "library": str(self.paths.library),
                "logs": str(self.paths.handler_logs),
                "name": name,
                **job,
            },
            deadline_s=deadline_s,
            done=done,
        )
