"""The life of the workers as one pure function: `step(workers, event, now) -> (workers, actions)`.

No clock, no process, no socket: `supervisor` turns what happens into events and carries the actions
out. Times are seconds of CLOCK_MONOTONIC. Invariants, tested with lost messages, clock jumps and
kills between any two actions: never two processes of a name; never parked for ever; no verdict on
time that was not seen; stop always ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import doubled_pause_s
from waagent.protocol.exit_codes import UPGRADE
from waagent.protocol.state_table import (
    ALIVE,
    BACKOFF,
    DONE,
    HUNG,
    IDLE,
    INIT,
    KILL,
    OFF,
    ONDEMAND,
    ONESHOT,
    PARKED,
    READY,
    STARTING,
    STOPPING,
    STUCK,
)
from waagent.supervisor import events as e
from waagent.supervisor.poll import LAG_S
from waagent.supervisor.states import NEVER, Life, Workers, waits_for

if TYPE_CHECKING:
    from waagent.supervisor.events import Action, Event

# from the first passed limit to the verdict: whoever was frozen together with us can still speak
DOUBT_S = 0.5
HELLO_LIMIT_S, INIT_LIMIT_S, STACK_S, STOP_LIMIT_S, KILL_LIMIT_S = 5.0, 30.0, 1.0, 5.0, 1.0
EMPTY_POLL_S, STUCK_POLL_S = 0.01, 1.0
LEASE_LIMIT_S = 600.0
SHORT_S = 5.0  # a run that ends sooner after READY counts as a failed one
NOT_STARTED_S = 0.5  # until the zygote is asked again
FIRST_BACKOFF_S, LONGEST_BACKOFF_S, JITTER = 0.25, 60.0, 0.2
SHORT_RUNS_TO_PARK, HANGS_TO_PARK, HANGS_WITHIN_S, PARKED_S = 8, 6, 3600.0, 300.0
FACTS_KEPT = 16  # of one worker, so that the table always fits
# one common deadline, below any init's; then the rest is left to init
END_LIMIT_S, GIVE_UP_S = 8.0, 2.0
# from one run to the next
_KEPT = ("restarts", "short_runs", "hangs", "wants", "off", "last_exit", "reason", "facts")


def step(workers: Workers, event: Event, now: float) -> tuple[Workers, tuple[Action, ...]]:
    """What ``event`` makes of ``workers`` at ``now``, and what is to be done about it, in this
    order.
    """
    turn = _Turn(workers, now)
    if _concerns_a_present_run(workers, event):
        _ON[type(event)](turn, event)
    for name in turn.lives:
        _settle(turn, name)
    if turn.upgrade and turn.end_by == NEVER and not turn.is_any_leased():
        turn.end_by, turn.status = now + END_LIMIT_S, UPGRADE
    if turn.end_by < NEVER:
        _go_on_ending(turn)
    return turn.workers(), tuple(turn.actions)


def _concerns_a_present_run(workers: Workers, event: Event) -> bool:
    """Nothing of a worker that we do not have, nothing of a process that is not its present one."""
    name = getattr(event, "name", None)
    if name is None:
        return True
    life = workers.lives.get(name)
    is_known_pid = isinstance(event, e.Forked) or not hasattr(event, "pid")
    return life is not None and (is_known_pid or getattr(event, "pid", None) == life.pid)


class _Turn:
    """The workers while one event is worked in."""

    def __init__(self, workers: Workers, now: float) -> None:
        self.lives, self.now = dict(workers.lives), now
        self.end_by, self.status, self.upgrade = workers.end_by, workers.status, workers.upgrade
        self.killed, self.ended = workers.killed, workers.ended
        self.actions: list[Action] = []

    def workers(self) -> Workers:
        return Workers(self.lives, self.end_by, self.status, self.upgrade, self.killed, self.ended)

    def alive(self) -> list[Life]:
        return [life for life in self.lives.values() if life.state in ALIVE]

    def is_any_leased(self) -> bool:
        return any(life.lease_until > self.now for life in self.alive())

    def change(self, name: str, **fields: Any) -> Life:
        self.lives[name] = self.lives[name]._replace(**fields)
        return self.lives[name]

    def enter(self, name: str, state: str, due: float, **fields: Any) -> Life:
        return self.change(name, state=state, since=self.now, due=due, doubted=False, **fields)

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
    turn.actions.append(e.Start(name, old.run + 1))


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
    recent = tuple(at for at in life.hangs if at > turn.now - HANGS_WITHIN_S)
    hangs = (*recent, turn.now) if life.hang else recent
    if failed and (short_runs >= SHORT_RUNS_TO_PARK or len(hangs) >= HANGS_TO_PARK):
        counts = f"{short_runs} failed runs, {len(hangs)} hangs within an hour"
        turn.note("error", name, f"parked after {counts}; tried again every {PARKED_S:.0f} s")
        next_try = (PARKED, turn.now + PARKED_S)
    elif failed:
        backoff_s = doubled_pause_s(short_runs, FIRST_BACKOFF_S, LONGEST_BACKOFF_S)
        next_try = (BACKOFF, turn.now + backoff_s * (1 - JITTER + 2 * JITTER * chance))
    else:
        next_try = (BACKOFF, turn.now)
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


def _go_on_ending(turn: _Turn) -> None:
    """Those who serve stop after those who do not; at the common deadline all are killed, and soon
    after it we leave in any case.
    """
    alive = turn.alive()
    for life in [life for life in alive if not life.row.serves] or alive:
        _stop(turn, life.row.name, "the agent stops")
    if turn.now >= turn.end_by and not turn.killed:
        turn.killed, turn.end_by = True, turn.now + GIVE_UP_S
        for life in turn.alive():
            if life.state not in (KILL, STUCK):
                _kill(turn, life.row.name, asked=True)
    is_over = not turn.alive() or (turn.killed and turn.now >= turn.end_by)
    if is_over and not turn.ended:
        turn.ended = True
        turn.actions.append(e.Leave(turn.status))


# events of time
def _tick(turn: _Turn, event: e.Tick) -> None:
    if event.lag > LAG_S:
        _shift(turn, event.lag)
    for name, life in list(turn.lives.items()):
        if life.due <= turn.now and life.state in (STARTING, INIT, READY) and not life.doubted:
            turn.change(name, doubted=True, due=turn.now + DOUBT_S)
        elif life.due <= turn.now and life.state in _JUDGE:
            _JUDGE[life.state](turn, turn.lives[name], event)


def _shift(turn: _Turn, lag: float) -> None:
    """We did not run for ``lag`` s: nobody is late for that."""
    turn.end_by += lag
    for name, life in turn.lives.items():
        due = life.due + lag
        if life.state in (STARTING, INIT, READY):
            due = max(due, turn.now + LAG_S)
        turn.lives[name] = life._replace(
            due=due, since=life.since + lag, lease_until=life.lease_until + lag
        )


def _judge_start(turn: _Turn, life: Life, event: e.Tick) -> None:
    name = life.row.name
    if life.pid is None:
        failed = e.StartFailed(name, life.run, "the zygote did not start it in time")
        _start_failed(turn, failed)
    else:
        turn.note("warning", name, f"no hello within {HELLO_LIMIT_S:.0f} s, killed")
        _kill(turn, name, reason="no hello")


def _judge_beat(turn: _Turn, life: Life, event: e.Tick) -> None:
    name = life.row.name
    limit_s = (life.row.beat_limit_s if life.state == READY else INIT_LIMIT_S) * 2**life.doubled
    if name in event.stalled and life.doubled < 2:
        turn.change(name, doubled=life.doubled + 1, doubted=False, due=turn.now + limit_s)
        text = f"silent for {limit_s:.0f} s, but it waits for disk or memory: its limit is doubled"
        turn.note("warning", name, text)
        return
    silence = "no heartbeat for" if life.state == READY else "not ready within"
    reason = f"{silence} {limit_s:.0f} s"
    turn.note("error", name, f"HUNG, {reason}")
    turn.enter(name, HUNG, turn.now + STACK_S, reason=reason)
    turn.actions.append(e.TakeStack(name))


def _judge_stop(turn: _Turn, life: Life, event: e.Tick) -> None:
    _kill(turn, life.row.name, hang=life.state == HUNG)


def _judge_kill(turn: _Turn, life: Life, event: e.Tick) -> None:
    name = life.row.name
    if life.pid is None and name not in event.occupied:
        turn.enter(name, *life.next_try)
    elif life.pid is None and life.state == KILL and turn.now < life.since + KILL_LIMIT_S:
        turn.change(name, due=turn.now + EMPTY_POLL_S)
        turn.actions.append(e.Kill(name))
    else:
        if life.state == KILL:
            reason = "a process of it cannot be killed"
            turn.note("error", name, f"STUCK: {reason}; it is not replaced meanwhile")
            turn.enter(name, STUCK, NEVER, reason=reason)
        turn.change(name, due=turn.now + STUCK_POLL_S if life.pid is None else NEVER)


_JUDGE: dict[str, Callable[[_Turn, Life, e.Tick], None]] = {
    STARTING: _judge_start,
    INIT:     _judge_beat,
    READY:    _judge_beat,
    HUNG:     _judge_stop,
    STOPPING: _judge_stop,
    KILL:     _judge_kill,
    STUCK:    _judge_kill,
}  # fmt: skip


# events of processes
def _is_awaited(turn: _Turn, name: str, run: int) -> bool:
    life = turn.lives[name]
    return life.state == STARTING and life.run == run and life.pid is None


def _forked(turn: _Turn, event: e.Forked) -> None:
    if _is_awaited(turn, event.name, event.run):
        turn.enter(event.name, STARTING, turn.now + HELLO_LIMIT_S, pid=event.pid)
        turn.actions.append(e.Open(event.name))


def _start_failed(turn: _Turn, event: e.StartFailed) -> None:
    if _is_awaited(turn, event.name, event.run):
        if turn.lives[event.name].reason != event.reason:
            turn.note("warning", event.name, f"not started: {event.reason}")
        turn.actions.append(e.Abandon(event.name))
        # no run, no failure of the worker: neither counted nor parked
        said = {"last_exit": "not started", "reason": event.reason}
        turn.enter(event.name, BACKOFF, turn.now + NOT_STARTED_S, **said)


def _exited(turn: _Turn, event: e.Exited) -> None:
    name = event.name
    ended = f"exit {event.status}" if event.status >= 0 else f"signal {-event.status}"
    life = turn.change(name, last_exit=ended, pid=None, lease_until=0.0)
    if life.result is not None and life.row.kind == ONESHOT:
        turn.enter(name, DONE, NEVER)
        return
    life = turn.change(name, result=None)
    was_short = life.ready_at is None or turn.now - life.ready_at < SHORT_S
    failed = not life.asked and (was_short or life.hang)
    if not life.asked:
        turn.note("warning", name, f"pid {event.pid} ended: {ended}")
    is_replaced = turn.end_by == NEVER and (life.row.kind != ONDEMAND or bool(life.wants))
    reason = life.reason if life.hang or life.asked else ended
    turn.change(name, restarts=life.restarts + is_replaced, reason=reason)
    _after_run(turn, name, failed, event.chance, event.left)


# events of words
def _hello(turn: _Turn, event: e.Hello) -> None:
    if turn.lives[event.name].state == STARTING:
        turn.enter(event.name, INIT, turn.now + INIT_LIMIT_S, beat_at=turn.now, guard=event.guard)
        turn.actions.append(e.Configure(event.name))


def _ready(turn: _Turn, event: e.Ready) -> None:
    life = turn.lives[event.name]
    if life.state == INIT:
        due = max(turn.now + life.row.beat_limit_s, life.lease_until)
        turn.enter(event.name, READY, due, ready_at=turn.now, beat_at=turn.now)


def _beat(turn: _Turn, event: e.Beat) -> None:
    life = turn.lives[event.name]
    facts = dict(list({**life.facts, **event.facts}.items())[-FACTS_KEPT:])
    turn.change(event.name, doing=event.doing, facts=facts, beat_at=turn.now)
    if life.state == READY:
        due = max(turn.now + life.row.beat_limit_s, life.lease_until)
        turn.change(event.name, due=due, doubled=0, doubted=False)


def _busy(turn: _Turn, event: e.Busy) -> None:
    """A lease; only the first one, and one that shows progress since the last, is granted."""
    life = turn.lives[event.name]
    is_new = life.lease_progress is None or event.progress > life.lease_progress
    if life.state not in (INIT, READY) or (event.seconds > 0 and not is_new):
        _beat(turn, e.Beat(event.name, event.pid, life.doing, event.progress, {}))
        return
    limit_s = INIT_LIMIT_S if life.state == INIT else life.row.beat_limit_s
    until = turn.now + max(0.0, min(event.seconds, LEASE_LIMIT_S))
    due = max(life.due if life.state == INIT and event.seconds > 0 else turn.now + limit_s, until)
    told = {"lease_progress": event.progress, "doing": event.reason} if event.seconds > 0 else {}
    turn.change(
        event.name, lease_until=until, due=due, beat_at=turn.now, doubted=False, doubled=0, **told
    )


def _done(turn: _Turn, event: e.Done) -> None:
    life = turn.lives[event.name]
    if life.state in (INIT, READY) and life.row.kind in (ONESHOT, ONDEMAND):
        # what it was wanted for; a wish that comes while it ends is a new one
        said = {"result": event.summary, "doing": event.summary, "wants": {}}
        turn.enter(event.name, STOPPING, turn.now + STOP_LIMIT_S, asked=True, **said)


def _set_wants(turn: _Turn, name: str, wants: Mapping[str, tuple[int, ...]]) -> None:
    before = turn.lives[name].numbers
    life = turn.change(name, wants=wants)
    if life.numbers != before and wants and life.state in (INIT, READY):
        turn.actions.append(e.Configure(name))


def _wanted(turn: _Turn, event: e.Wanted) -> None:
    if event.by in turn.lives and event.name in turn.lives[event.by].row.wants:
        wants = turn.lives[event.name].wants
        _set_wants(turn, event.name, {**wants, event.by: event.numbers})


def _unwanted(turn: _Turn, event: e.Unwanted) -> None:
    wants = turn.lives[event.name].wants
    _set_wants(turn, event.name, {by: want for by, want in wants.items() if by != event.by})


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


def _end(turn: _Turn, event: e.End) -> None:
    if turn.end_by == NEVER:
        turn.end_by, turn.status = turn.now + END_LIMIT_S, event.status


_ON: dict[type, Callable[[_Turn, Any], None]] = {
    e.Tick:        _tick,
    e.Forked:      _forked,
    e.StartFailed: _start_failed,
    e.Exited:      _exited,
    e.Hello:       _hello,
    e.Ready:       _ready,
    e.Beat:        _beat,
    e.Busy:        _busy,
    e.Done:        _done,
    e.Wanted:      _wanted,
    e.Unwanted:    _unwanted,
    e.Restart:     _restart,
    e.Switched:    _switched,
    e.Upgrade:     _upgrade,
    e.End:         _end,
}  # fmt: skip
