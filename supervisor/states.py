"""What is known of each worker, and the limits of each state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from waagent.protocol.base.records import Record
from waagent.protocol.state_table import ALIVE, BACKOFF, DONE, IDLE, PARKED, WorkerRow
from waagent.supervisor.roster import Row

NEVER = float("inf")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# fields that a life has in common with its row in the table
_SHOWN_AS_IT_IS = "state since pid restarts last_exit reason beat_at facts result wants".split()


class Life(Record):
    """All that is known of one worker."""

    row: Row
    state: str = IDLE
    since: float = 0.0
    due: float = NEVER
    """When the state is judged: its limit, or the next try."""
    run: int = 0
    pid: int | None = None
    ready_at: float | None = None
    beat_at: float | None = None
    lease_until: float = 0.0
    lease_progress: int | None = None
    doubled: int = 0
    """How often the limit was doubled, for it waits for disk or memory."""
    doubted: bool = False
    """Its limit has passed; the verdict comes DOUBT_S later."""
    hang: bool = False
    """This run ends because it hung."""
    next_try: tuple[str, float] = (BACKOFF, 0.0)
    """State and time after this run, once nothing of it is left."""
    asked: bool = False
    """This run ends because we want it to."""
    restarts: int = 0
    short_runs: int = 0
    hangs: tuple[float, ...] = ()
    wants: Mapping[str, tuple[int, ...]] = _NOTHING
    """Who wants it, with which numbers; until the same one says otherwise, in a later run too."""
    off: bool = False
    result: str | None = None
    last_exit: str = ""
    reason: str = ""
    doing: str = ""
    facts: Mapping[str, Any] = _NOTHING
    guard: Mapping[str, Any] = _NOTHING
    """What is in force: uid, caps, fence."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """All numbers that anyone wants it with."""
        return tuple(sorted({number for numbers in self.wants.values() for number in numbers}))


class Workers(Record):
    """All of them; ``end_by`` is finite once everything is to stop, ``killed`` when the common
    deadline for that has passed.
    """

    lives: Mapping[str, Life]
    end_by: float = NEVER
    status: int = 0
    upgrade: bool = False
    killed: bool = False
    ended: bool = False


def begin(rows: Iterable[Row], off: Iterable[str], before: Mapping[str, WorkerRow]) -> Workers:
    """The workers of a new supervisor, ``off`` by configuration; of ``before``, which this build
    wrote in this boot, results, facts and wishes still hold.

    The first event starts the rest.
    """
    lives = {}
    for row in rows:
        was = before.get(row.name, WorkerRow())
        life = Life(row, off=row.name in off, facts=was.facts)
        life = life._replace(wants={by: tuple(numbers) for by, numbers in was.wants.items()})
        is_done = was.state == DONE
        lives[row.name] = life._replace(state=DONE, result=was.result or "") if is_done else life
    return Workers(lives)


def next_due(workers: Workers) -> float:
    """When the next Tick is needed."""
    lives = workers.lives.values()
    leases = (life.lease_until for life in lives if workers.upgrade and life.state in ALIVE)
    judged = (life.due for life in lives if life.state in ALIVE or not workers.upgrade)
    return min((*judged, *leases, NEVER if workers.ended else workers.end_by))


def overdue(workers: Workers, now: float) -> list[Life]:
    """Those about whom the coming Tick decides: the supervisor looks whether they wait for a disk,
    and whether anything is left of them.
    """
    return [life for life in workers.lives.values() if life.due <= now and life.state in ALIVE]


def waits_for(lives: Mapping[str, Life], row: Row) -> list[str]:
    """The one-shots that must be DONE before this worker starts, and are not."""
    return [name for name in row.after if name in lives and lives[name].state != DONE]


def shown(life: Life, waits: Iterable[str], start_ticks: int | None, stack: str) -> WorkerRow:
    """``life`` as the table shows it; ``stack`` is the file that holds the last hang's."""
    is_planned = life.state in (BACKOFF, PARKED) and life.due < NEVER
    return WorkerRow(
        name=life.row.name,
        kind=life.row.kind,
        **{field: getattr(life, field) for field in _SHOWN_AS_IT_IS},
        start_ticks=start_ticks,
        next_try_at=life.due if is_planned else None,
        doing=life.result or life.doing,
        uid=life.guard.get("uid"),
        caps=tuple(life.guard.get("caps", ())),
        fence=life.guard.get("fence", ""),
        stack=stack,
        waits=tuple(waits),
    )
