"""What happens to the table of workers (events), and what is to be done about it (actions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.records import Record

if TYPE_CHECKING:
    from typing import Union


# events of time and processes
class Tick(Record):
    """Time has passed; the loop came ``lag`` s too late."""

    lag: float
    stalled: frozenset[str]
    """Workers that wait for a disk or for memory."""
    occupied: frozenset[str]
    """Workers whose process is gone, while something lives in their cgroup."""


class Forked(Record):
    """The zygote made the process of this run; it waits behind its gate."""

    name: str
    run: int
    pid: int


class StartFailed(Record):
    """There is no process for this run."""

    name: str
    run: int
    reason: str


class Exited(Record):
    """A worker's process was reaped."""

    name: str
    pid: int
    status: int
    """Exit status; negative: the signal."""
    left: bool
    """Something lives in its cgroup still."""
    chance: float
    """0 to 1, for the jitter of the next try."""


# events of words: what workers and root say on the control socket
class Hello(Record):
    """Its code runs; ``guard`` is what is in force around it: uid, caps, fence."""

    name: str
    pid: int
    guard: Mapping[str, Any]


class Ready(Record):
    """It does its job."""

    name: str
    pid: int


class Beat(Record):
    """A heartbeat."""

    name: str
    pid: int
    doing: str
    progress: int
    facts: Mapping[str, Any]


class Busy(Record):
    """It asks not to be judged for ``seconds``; 0 gives the rest back."""

    name: str
    pid: int
    seconds: float
    reason: str
    progress: int
    """Must have grown since the last lease."""


class Done(Record):
    """A one-shot's result, or the end of what an on-demand worker was wanted for."""

    name: str
    pid: int
    summary: str


class Wanted(Record):
    """The worker ``by`` wants ``name`` to run, with these numbers."""

    by: str
    name: str
    numbers: tuple[int, ...]


class Unwanted(Record):
    """The worker ``by`` wants ``name`` no more."""

    by: str
    name: str


class Restart(Record):
    """Root asks for a new run now."""

    name: str


class Switched(Record):
    """The configuration was read: these workers are off, the others are not."""

    off: frozenset[str]


class Upgrade(Record):
    """Another build is installed."""


class End(Record):
    """Everything is to stop, with this exit status in the end."""

    status: int


# actions
class Start(Record):
    """Have the zygote fork it."""

    name: str
    run: int


class Open(Record):
    """Let it through its gate, once its pid stands in the state file."""

    name: str


class Abandon(Record):
    """Close its gate: whoever waits behind it exits."""

    name: str


class Configure(Record):
    """Send it its options and numbers."""

    name: str


class SayStop(Record):
    """Ask it to end."""

    name: str


class TakeStack(Record):
    """Have it write its stack."""

    name: str


class Kill(Record):
    """SIGKILL for it and all that lives in its cgroup."""

    name: str


class Note(Record):
    """A line in the log; with no ``name`` it concerns the agent as a whole."""

    level: str
    name: str
    text: str


class Leave(Record):
    """End the supervisor's process."""

    status: int


if TYPE_CHECKING:
    Word = Union[Ready, Beat, Busy, Done, Wanted, Unwanted]
    Event = Union[Tick, Forked, StartFailed, Exited, Hello, Word, Restart, Switched, Upgrade, End]
    Action = Union[Start, Open, Abandon, Configure, SayStop, TakeStack, Kill, Note, Leave]
