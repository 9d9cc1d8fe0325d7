"""The life of the workers as one pure function: `step(table, event, now) -> (table, actions)`.

No clock, no process, no socket: `core` turns what happens into events and carries the actions out.
Times are seconds of CLOCK_MONOTONIC. Invariants, tested with lost messages, clock jumps and kills
between any two actions: never two processes of a name; never parked for ever; no verdict on time
that was not seen; stop always ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from waagent.protocol.base.records import Record
from waagent.supervisor import events as e
from waagent.supervisor.roster import ONDEMAND, ONESHOT, UNPRIVILEGED, Row

IDLE, OFF, STARTING, INIT, READY, HUNG = "IDLE", "OFF", "STARTING", "INIT", "READY", "HUNG"
STOPPING, KILL, STUCK, BACKOFF, PARKED, DONE = (
    "STOPPING",
    "KILL",
    "STUCK",
    "BACKOFF",
    "PARKED",
    "DONE",
)
# there is a process, or may be
ALIVE = frozenset({STARTING, INIT, READY, HUNG, STOPPING, KILL, STUCK})

NEVER = float("inf")
LAG_S = 2.0  # a turn that begins later than this moves every deadline
# from the first passed limit to the verdict: whoever was frozen together with us can still speak
DOUBT_S = 0.5
HELLO_LIMIT_S, INIT_LIMIT_S, STACK_S, STOP_LIMIT_S, KILL_LIMIT_S = 5.0, 30.0, 1.0, 5.0, 1.0
EMPTY_POLL_S, STUCK_POLL_S = 0.1, 1.0
LEASE_LIMIT_S = 600.0
SHORT_S = 5.0  # a run that ends sooner after READY counts as a failed one
FIRST_BACKOFF_S, LONGEST_BACKOFF_S, JITTER = 0.25, 60.0, 0.2
SHORT_RUNS_TO_PARK, HANGS_TO_PARK, HANGS_WITHIN_S, PARKED_S = 8, 6, 3600.0, 300.0
WANT_OUTLIVES_S = 30.0  # so that a restart of the one who wants does not stop the wanted one
# one common deadline, below any init's; then the rest is left to init
END_LIMIT_S, GIVE_UP_S = 8.0, 2.0
EXIT_ROOT_NEEDED, EXIT_UPGRADE = 77, 75
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# from one run to the next
_KEPT = (
    "restarts",
    "short_runs",
    "hangs",
    "wants",
    "off",
    "as_root",
    "last_exit",
    "reason",
    "facts",
)


class Want(Record):
    """One worker's wish that another one runs; ``lost_at`` is when the wishing one ended."""

    numbers: tuple[int, ...]
    lost_at: float | None = None


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
    doubted: bool = False
    hang: bool = False
    next_try: tuple[str, float] = (BACKOFF, 0.0)
    """State and time after this run, once nothing of it is left."""
    asked: bool = False
    """This run ends because we want it to."""
    restarts: int = 0
    short_runs: int = 0
    hangs: tuple[float, ...] = ()
    wants: Mapping[str, Want] = _NOTHING
    off: bool = False
    as_root: bool = False
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
        return tuple(sorted({number for want in self.wants.values() for number in want.numbers}))


class Table(Record):
    """The whole; ``end_by`` is finite once everything is to stop, ``killed`` when the common
    deadline for that has passed.
    """

    lives: Mapping[str, Life]
    end_by: float = NEVER
    status: int = 0
    upgrade: bool = False
    killed: bool = False
    ended: bool = False


def begin(
    rows: Iterable[Row],
    results: Mapping[str, str],
    off: Iterable[str],
    facts: Mapping[str, Mapping[str, Any]] = _NOTHING,
) -> Table:
    """The first table; ``results`` of one-shots that are done already, ``off`` by configuration,
    ``facts`` that workers told before.

    The first event starts the rest.
    """
    told = ((row, row.name, results.get(row.name), facts.get(row.name, _NOTHING)) for row in rows)
    return Table(
        {
            name: Life(row, IDLE if done is None else DONE, result=done, off=name in off, facts=it)
            for row, name, done, it in told
        }
    )


def step(table: Table, event: Any, now: float) -> tuple[Table, tuple[Any, ...]]:
    """What ``event`` makes of ``table`` at ``now``, and what is to be done about it, in this
    order.
    """
    turn = _Turn(table, now)
    life = turn.lives.get(getattr(event, "name", ""))
    is_of_nobody = hasattr(event, "name") and life is None
    is_of_the_past = (
        life is not None
        and hasattr(event, "pid")
        and event.pid != life.pid
        and not isinstance(event, e.Forked)
    )
    if not is_of_nobody and not is_of_the_past:
        _ON[type(event)](turn, event)
    for name in turn.lives:
        _settle(turn, name)
    if (
        turn.upgrade
        and turn.end_by == NEVER
        and not any(one.state in ALIVE and one.lease_until > now for one in turn.lives.values())
    ):
        turn.end_by, turn.status = now + END_LIMIT_S, EXIT_UPGRADE
    if turn.end_by < NEVER:
        _end(turn)
    return Table(
        turn.lives, turn.end_by, turn.status, turn.upgrade, turn.killed, turn.ended
    ), tuple(turn.actions)


def next_due(table: Table) -> float:
    """When the next Tick is needed."""
    lives = table.lives.values()
    lost = (
        want.lost_at + WANT_OUTLIVES_S
        for life in lives
        for want in life.wants.values()
        if want.lost_at is not None
    )
    leases = (life.lease_until for life in lives if table.upgrade and life.state in ALIVE)
    judged = (life.due for life in lives if life.state in ALIVE or not table.upgrade)
    return min((*judged, *lost, *leases, NEVER if table.ended else table.end_by))


def overdue(table: Table, now: float) -> list[Life]:
    """Those about whom the coming Tick decides: core looks whether they wait for a disk, and
    whether anything is left of them.
    """
    return [life for life in table.lives.values() if life.due <= now and life.state in ALIVE]


def waits_for(lives: Mapping[str, Life], row: Row) -> list[str]:
    """The one-shots that must be DONE before this worker starts, and are not."""
    return [name for name in row.after if name in lives and lives[name].state != DONE]


class _Turn:
    """The table while one event is worked in."""

    def __init__(self, table: Table, now: float) -> None:
        self.lives, self.now = dict(table.lives), now
        _, self.end_by, self.status, self.upgrade, self.killed, self.ended = table
        self.actions: list[Any] = []

    def change(self, name: str, **fields: Any) -> Life:
        self.lives[name] = self.lives[name]._replace(**fields)
        return self.lives[name]

    def enter(self, name: str, state: str, due: float, **fields: Any) -> None:
        self.change(name, state=state, since=self.now, due=due, doubted=False, **fields)

    def note(self, level: str, name: str, text: str) -> None:
        self.actions.append(e.Note(level, name, text))


# what is done with one worker
def _start(turn: _Turn, name: str) -> None:
    """A new run: nothing of the last one but counters, wishes, facts, and why it ended."""
    old = turn.lives[name]
    kept = {key: getattr(old, key) for key in _KEPT}
    turn.lives[name] = Life(
        old.row, STARTING, turn.now, turn.now + HELLO_LIMIT_S, old.run + 1, **kept
    )
    turn.actions.append(e.Start(name, old.run + 1, old.as_root))


def _kill(turn: _Turn, name: str, **fields: Any) -> None:
    turn.enter(name, KILL, turn.now + KILL_LIMIT_S, **fields)
    turn.actions.append(e.Kill(name))


def _stop(turn: _Turn, name: str, reason: str) -> None:
    life = turn.lives[name]
    if life.state == STARTING and life.pid is None:
        turn.actions.append(e.Abandon(name))
        turn.enter(name, BACKOFF, turn.now, reason=reason)
    elif life.state == STARTING:  # it has no connection yet on which it could be asked
        _kill(turn, name, asked=True, reason=reason)
    elif life.state in (INIT, READY):
        turn.enter(name, STOPPING, turn.now + STOP_LIMIT_S, asked=True, reason=reason)
        turn.actions.append(e.SayStop(name))


def _after_run(turn: _Turn, name: str, failed: bool, chance: float, left: bool = False) -> None:
    """The next try of a worker whose run is over: at once, after a while, or parked."""
    life = turn.lives[name]
    short_runs = life.short_runs + 1 if failed else 0
    hangs = tuple(at for at in life.hangs if at > turn.now - HANGS_WITHIN_S) + (
        (turn.now,) if life.hang else ()
    )
    parked = failed and (short_runs >= SHORT_RUNS_TO_PARK or len(hangs) >= HANGS_TO_PARK)
    backoff_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(short_runs - 1, 16)) * (
        1 - JITTER + 2 * JITTER * chance
    )
    next_try = (
        PARKED if parked else BACKOFF,
        turn.now + (PARKED_S if parked else backoff_s if failed else 0.0),
    )
    if parked:
        counts = f"{short_runs} failed runs, {len(hangs)} hangs within an hour"
        turn.note("error", name, f"parked after {counts}; tried again every {PARKED_S:.0f} s")
    turn.enter(
        name, *next_try, pid=None, short_runs=short_runs, hangs=hangs, hang=False, next_try=next_try
    )
    # tools of it are still at work: nobody may change the system beside them
    if left and life.row.changes_system:
        turn.enter(name, KILL, turn.now + EMPTY_POLL_S)


def _settle(turn: _Turn, name: str) -> None:
    """Start what should run and may, stop what should not."""
    life = turn.lives[name]
    asked_for = (life.row.kind != ONDEMAND or bool(life.wants)) and not life.off
    wanted = asked_for and turn.end_by == NEVER and not waits_for(turn.lives, life.row)
    rest = OFF if life.off else IDLE
    if life.state in (IDLE, OFF, BACKOFF, PARKED):
        if wanted and not turn.upgrade and (life.state in (IDLE, OFF) or life.due <= turn.now):
            _start(turn, name)
        elif not wanted and life.state != rest:
            turn.enter(name, rest, NEVER)
    elif not wanted and turn.end_by == NEVER and life.state in (STARTING, INIT, READY):
        _stop(turn, name, "off" if life.off else "no longer wanted")
        _settle(turn, name)


def _end(turn: _Turn) -> None:
    """Those who serve stop after those who do not; at the common deadline all are killed, and soon
    after it we leave in any case.
    """
    alive = [life for life in turn.lives.values() if life.state in ALIVE]
    for life in [life for life in alive if not life.row.serves] or alive:
        _stop(turn, life.row.name, "the agent stops")
    if turn.now >= turn.end_by and not turn.killed:
        turn.killed, turn.end_by = True, turn.now + GIVE_UP_S
        for life in [life for life in turn.lives.values() if life.state in ALIVE - {KILL, STUCK}]:
            _kill(turn, life.row.name, asked=True)
    is_over = not any(life.state in ALIVE for life in turn.lives.values()) or (
        turn.killed and turn.now >= turn.end_by
    )
    if is_over and not turn.ended:
        turn.ended = True
        turn.actions.append(e.Leave(turn.status))


# events of time
def _tick(turn: _Turn, event: e.Tick) -> None:
    if event.lag > LAG_S:
        _shift(turn, event.lag)
    for name, life in list(turn.lives.items()):
        wants = {
            by: want
            for by, want in life.wants.items()
            if want.lost_at is None or want.lost_at + WANT_OUTLIVES_S > turn.now
        }
        if wants != life.wants:
            _set_wants(turn, name, wants)
        if life.due <= turn.now and life.state in (STARTING, INIT, READY) and not life.doubted:
            turn.change(name, doubted=True, due=turn.now + DOUBT_S)
        elif life.due <= turn.now and life.state in _JUDGE:
            _JUDGE[life.state](turn, turn.lives[name], event)


def _shift(turn: _Turn, lag: float) -> None:
    turn.end_by += lag
    for name, life in turn.lives.items():
        wants = {
            by: want if want.lost_at is None else Want(want.numbers, want.lost_at + lag)
            for by, want in life.wants.items()
        }
        due = (
            max(life.due + lag, turn.now + LAG_S)
            if life.state in (STARTING, INIT, READY)
            else life.due + lag
        )
        turn.lives[name] = life._replace(
            due=due, since=life.since + lag, lease_until=life.lease_until + lag, wants=wants
        )


def _judge_start(turn: _Turn, life: Life, event: e.Tick) -> None:
    if life.pid is None:
        _start_failed(
            turn, e.StartFailed(life.row.name, life.run, "the zygote did not start it in time", 0.5)
        )
    else:
        turn.note("warning", life.row.name, f"no hello within {HELLO_LIMIT_S:.0f} s, killed")
        _kill(turn, life.row.name, reason="no hello")


def _judge_beat(turn: _Turn, life: Life, event: e.Tick) -> None:
    name = life.row.name
    limit_s = (life.row.beat_limit_s if life.state == READY else INIT_LIMIT_S) * 2**life.doubled
    if name in event.stalled and life.doubled < 2:
        turn.change(name, doubled=life.doubled + 1, doubted=False, due=turn.now + limit_s)
        turn.note(
            "warning",
            name,
            f"silent for {limit_s:.0f} s, but it waits for disk or memory: its limit is doubled",
        )
        return
    reason = (
        f"no heartbeat for {limit_s:.0f} s"
        if life.state == READY
        else f"not ready within {limit_s:.0f} s"
    )
    turn.note("error", name, f"HUNG, {reason}")
    turn.enter(name, HUNG, turn.now + STACK_S, reason=reason)
    turn.actions.append(e.TakeStack(name))


def _judge_kill(turn: _Turn, life: Life, event: e.Tick) -> None:
    name = life.row.name
    if life.pid is None and name not in event.occupied:
        turn.enter(name, *life.next_try)
    elif life.pid is None and life.state == KILL and turn.now < life.since + KILL_LIMIT_S:
        turn.change(name, due=turn.now + EMPTY_POLL_S)
        turn.actions.append(e.Kill(name))
    else:
        if life.state == KILL:
            turn.note(
                "error",
                name,
                "STUCK: a process of it cannot be killed; it is not replaced meanwhile",
            )
            turn.enter(name, STUCK, NEVER, reason="a process of it cannot be killed")
        turn.change(name, due=turn.now + STUCK_POLL_S if life.pid is None else NEVER)


_JUDGE: dict[str, Callable[[_Turn, Life, e.Tick], None]] = {
    STARTING: _judge_start,
    INIT:     _judge_beat,
    READY:    _judge_beat,
    HUNG:     lambda turn, life, event: _kill(turn, life.row.name, hang=True),
    STOPPING: lambda turn, life, event: _kill(turn, life.row.name),
    KILL:     _judge_kill,
    STUCK:    _judge_kill,
}  # fmt: skip


# events of processes
def _forked(turn: _Turn, event: e.Forked) -> None:
    life = turn.lives[event.name]
    if (life.state, life.run, life.pid) == (STARTING, event.run, None):
        turn.enter(event.name, STARTING, turn.now + HELLO_LIMIT_S, pid=event.pid)
        turn.actions.append(e.Open(event.name))


def _start_failed(turn: _Turn, event: e.StartFailed) -> None:
    life = turn.lives[event.name]
    if (life.state, life.run, life.pid) == (STARTING, event.run, None):
        turn.change(event.name, last_exit="not started", reason=event.reason)
        turn.note("warning", event.name, f"not started: {event.reason}")
        turn.actions.append(e.Abandon(event.name))
        _after_run(turn, event.name, True, event.chance)


def _exited(turn: _Turn, event: e.Exited) -> None:
    name, ended = (
        event.name,
        f"exit {event.status}" if event.status >= 0 else f"signal {-event.status}",
    )
    for other, its in list(turn.lives.items()):
        if name in its.wants:
            turn.change(other, wants={**its.wants, name: Want(its.wants[name].numbers, turn.now)})
    life = turn.change(name, last_exit=ended, pid=None, lease_until=0.0)
    if life.result is not None and life.row.kind == ONESHOT:
        turn.enter(name, DONE, NEVER)
        return
    if life.result is not None:  # on demand, and done with what it was wanted for
        life = turn.change(name, wants={}, result=None)
    elif (
        event.status == EXIT_ROOT_NEEDED and life.row.privilege == UNPRIVILEGED and not life.as_root
    ):
        turn.note(
            "warning",
            name,
            "only uid 0 can reach the platform: started as uid 0 without any capability",
        )
        life = turn.change(name, as_root=True, asked=True)
    failed = not life.asked and (
        life.ready_at is None or life.hang or turn.now - life.ready_at < SHORT_S
    )
    if not life.asked:
        turn.note("warning", name, f"pid {event.pid} ended: {ended}")
    is_replaced = turn.end_by == NEVER and (life.row.kind != ONDEMAND or bool(life.wants))
    turn.change(
        name,
        restarts=life.restarts + is_replaced,
        reason=life.reason if life.hang or life.asked else ended,
    )
    _after_run(turn, name, failed, event.chance, event.left)


# events of words
def _hello(turn: _Turn, event: e.Hello) -> None:
    if turn.lives[event.name].state == STARTING:
        turn.enter(event.name, INIT, turn.now + INIT_LIMIT_S, beat_at=turn.now, guard=event.guard)
        turn.actions.append(e.Configure(event.name))


def _ready(turn: _Turn, event: e.Ready) -> None:
    life = turn.lives[event.name]
    if life.state == INIT:
        turn.enter(
            event.name,
            READY,
            max(turn.now + life.row.beat_limit_s, life.lease_until),
            ready_at=turn.now,
            beat_at=turn.now,
        )


def _beat(turn: _Turn, event: e.Beat) -> None:
    life = turn.lives[event.name]
    turn.change(
        event.name, doing=event.doing, facts={**life.facts, **event.facts}, beat_at=turn.now
    )
    if life.state == READY:
        due = max(turn.now + life.row.beat_limit_s, life.lease_until)
        turn.change(event.name, due=due, doubled=0, doubted=False)


def _busy(turn: _Turn, event: e.Busy) -> None:
    """A lease; only the first one, and one that shows progress since the last, is granted."""
    life = turn.lives[event.name]
    is_new = life.lease_progress is None or event.progress > life.lease_progress
    if life.state not in (INIT, READY) or (event.seconds > 0 and not is_new):
        _beat(turn, e.Beat(event.name, event.pid, life.doing, 0, {}))
        return
    limit_s = INIT_LIMIT_S if life.state == INIT else life.row.beat_limit_s
    until = turn.now + max(0.0, min(event.seconds, LEASE_LIMIT_S))
    due = max(life.due if life.state == INIT and event.seconds > 0 else turn.now + limit_s, until)
    told = {"lease_progress": event.progress, "doing": event.reason} if event.seconds > 0 else {}
    turn.change(
        event.name, lease_until=until, due=due, beat_at=turn.now, doubted=False, doubled=0, **told
    )


def _done(turn: _Turn, event: e.Done) -> None:
    if turn.lives[event.name].state in (INIT, READY) and turn.lives[event.name].row.kind in (
        ONESHOT,
        ONDEMAND,
    ):
        turn.enter(
            event.name,
            STOPPING,
            turn.now + STOP_LIMIT_S,
            result=event.summary,
            doing=event.summary,
            asked=True,
        )


def _set_wants(turn: _Turn, name: str, wants: Mapping[str, Want]) -> None:
    before = turn.lives[name].numbers
    life = turn.change(name, wants=wants)
    if life.numbers != before and wants and life.state in (INIT, READY):
        turn.actions.append(e.Configure(name))


def _wanted(turn: _Turn, event: e.Wanted) -> None:
    if event.by in turn.lives and event.name in turn.lives[event.by].row.wants:
        _set_wants(
            turn, event.name, {**turn.lives[event.name].wants, event.by: Want(event.numbers)}
        )


def _unwanted(turn: _Turn, event: e.Unwanted) -> None:
    _set_wants(
        turn,
        event.name,
        {by: want for by, want in turn.lives[event.name].wants.items() if by != event.by},
    )


def _restart(turn: _Turn, event: e.Restart) -> None:
    life = turn.change(event.name, short_runs=0, hangs=())
    if life.state in (BACKOFF, PARKED):
        turn.change(event.name, due=turn.now)
    _stop(turn, event.name, "restart asked for")


def _switched(turn: _Turn, event: e.Switched) -> None:
    for name in turn.lives:
        turn.change(name, off=name in event.off)


def _upgrade(turn: _Turn, event: e.Upgrade) -> None:
    turn.upgrade = True
    for life in list(turn.lives.values()):
        if life.state == STARTING and life.pid is None:
            _stop(turn, life.row.name, "another build is installed")


def _end_all(turn: _Turn, event: e.End) -> None:
    if turn.end_by == NEVER:
        turn.end_by, turn.status = turn.now + END_LIMIT_S, event.status


_ON: dict[type, Callable[[_Turn, Any], None]] = {
    e.Tick: _tick,
    e.Forked: _forked,
    e.StartFailed: _start_failed,
    e.Exited: _exited,
    e.Hello: _hello,
    e.Ready: _ready,
    e.Beat: _beat,
    e.Busy: _busy,
    e.Done: _done,
    e.Wanted: _wanted,
    e.Unwanted: _unwanted,
    e.Restart: _restart,
    e.Switched: _switched,
    e.Upgrade: _upgrade,
    e.End: _end_all,
}
