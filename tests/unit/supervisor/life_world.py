"""A world in which the life function is driven: processes, a zygote, a clock, and everything that
goes wrong with them.
"""

from __future__ import annotations

import random
from typing import Any

from waagent.protocol.state_table import (
    BACKOFF,
    HUNG,
    INIT,
    ONDEMAND,
    ONESHOT,
    PARKED,
    READY,
    RESIDENT,
    STARTING,
    STOPPING,
)
from waagent.supervisor import events as e
from waagent.supervisor import states, transitions
from waagent.supervisor.poll import LAG_S
from waagent.supervisor.roster import ROOT_ACCOUNT, WAAGENT, Row

ROWS = (
    Row("client", RESIDENT, WAAGENT, (), 64, 64, 256, serves=True, wants=("probe",)),
    Row("setup", ONESHOT, ROOT_ACCOUNT, (), 64, 64, 256, serves=False, changes_system=True),
    Row(
        "runner",
        RESIDENT,
        ROOT_ACCOUNT,
        (),
        64,
        64,
        256,
        serves=False,
        after=("setup",),
        changes_system=True,
    ),
    Row(
        "probe",
        ONDEMAND,
        WAAGENT,
        (),
        64,
        64,
        256,
        serves=False,
        beat_s=5.0,
        beat_limit_s=12.0,
    ),
)


class World:
    """Processes as the kernel would keep them. Holds: what the table believes may be late, never
    what it did.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.now, self.pids = chance, 1000.0, 100
        self.workers = states.begin(ROWS, (), {})
        self.asked: list[tuple[str, int]] = []  # starts that the zygote has not answered
        self.gated: dict[int, tuple[str, int]] = {}
        self.running: dict[int, str] = {}
        self.immortal: set[int] = set()
        self.exits: list[e.Exited] = []
        self.heard: dict[int, float] = {}  # last word, moved by all lag the table was told of
        self.left: int | None = None

    def tell(self, event: Any) -> None:
        """One event, its actions carried out, the invariants looked at."""
        before = self.workers
        self.workers, actions = transitions.step(self.workers, event, self.now)
        for action in actions:
            self._carry_out(action)
        self._look(before)

    def _carry_out(self, action: Any) -> None:
        kind, name = type(action), getattr(action, "name", "")
        if kind is e.Start:
            self.asked.append((name, action.run))
        elif kind is e.Open:
            pid = self.workers.lives[name].pid
            assert pid is not None
            self.gated.pop(pid)
            self.running[pid] = name
            self.heard[pid] = self.now
        elif kind is e.Abandon:
            for pid in [pid for pid, (owner, _) in self.gated.items() if owner == name]:
                del self.gated[pid]
        elif kind is e.Kill:
            for pid in [
                pid
                for pid, owner in self.running.items()
                if owner == name and pid not in self.immortal
            ]:
                self.end(pid, -9)
        elif kind is e.Leave:
            assert self.left is None, "left twice"
            self.left = action.status

    def end(self, pid: int, status: int) -> None:
        """A process ends; the news of it comes later."""
        self.immortal.discard(pid)
        self.exits.append(
            e.Exited(
                self.running.pop(pid), pid, status, self.chance.random() < 0.2, self.chance.random()
            )
        )

    def advance(self, seconds: float, lag: float = 0.0) -> None:
        """Time goes by as an unhurried loop sees it; with ``lag`` the last turn begins that much
        too late.
        """
        until = self.now + seconds
        for _ in range(400):
            due = states.next_due(self.workers)
            if due > until:
                break
            self.now = max(self.now, due)
            self._tick(0.0)
        self.now = until
        if lag:
            self.now += lag
            if lag > LAG_S:
                self.heard = {pid: at + lag for pid, at in self.heard.items()}
            self._tick(lag)

    def _tick(self, lag: float) -> None:
        stalled = frozenset(row.name for row in ROWS if self.chance.random() < 0.1)
        occupied = frozenset(row.name for row in ROWS if self.chance.random() < 0.3)
        self.tell(e.Tick(lag, stalled, occupied))

    def _look(self, before: states.Workers) -> None:
        for row in ROWS:
            now, was = self.workers.lives[row.name], before.lives[row.name]
            running = [pid for pid, name in self.running.items() if name == row.name]
            assert len(running) <= 1, f"two of {row.name}: {running}"
            if now.state in (BACKOFF, PARKED):
                assert now.due <= self.now + transitions.PARKED_S + 1e-6, (
                    f"{row.name} waits for ever"
                )
            if now.state == HUNG and was.state == READY and now.pid in self.heard:
                silent = self.now - self.heard[now.pid]
                assert silent >= row.beat_limit_s - 1e-6, (
                    f"{row.name} called hung after {silent} s that were seen"
                )

    def happen(self) -> None:
        """One thing of those that happen."""
        self.chance.choice(_HAPPENINGS)(self)

    # what may happen
    def fork(self) -> None:
        if self.asked:
            name, run = self.asked.pop(self.chance.randrange(len(self.asked)))
            self.pids += 1
            current = self.workers.lives[name]
            if current.state == STARTING and current.run == run:
                self.gated[self.pids] = (name, run)
            self.tell(e.Forked(name, run, self.pids))

    def refuse_fork(self) -> None:
        if self.asked:
            name, run = self.asked.pop()
            self.tell(e.StartFailed(name, run, "no process left"))

    def lose_answer(self) -> None:
        if self.asked:
            self.asked.pop()

    def speak(self) -> None:
        if not self.running:
            return
        pid, name = self.chance.choice(sorted(self.running.items()))
        state = self.workers.lives[name].state
        likely = {STARTING: 0, INIT: 1}.get(state, self.chance.randrange(2, 8))
        said = likely if self.chance.random() < 0.8 else self.chance.randrange(8)
        if said in (2, 3, 4) or (said == 1 and state == INIT):
            self.heard[pid] = self.now
        self.tell(
            (
                e.Hello(name, pid, {}),
                e.Ready(name, pid),
                e.Beat(name, pid, "polls", self.chance.randrange(9), {}),
                e.Beat(name, pid, "waits", 3, {"a": 1}),
                e.Busy(
                    name, pid, self.chance.choice((0, 5, 900)), "mkfs", self.chance.randrange(9)
                ),
                e.Wanted(name, "probe", (self.chance.randrange(3),)),
                e.Unwanted(name, "probe"),
                e.Done(name, pid, "made"),
            )[said]
        )

    def die(self) -> None:
        if self.running:
            pid = self.chance.choice(sorted(self.running))
            self.end(pid, self.chance.choice((0, 1, 77, -9, -11)))

    def stick(self) -> None:
        if self.running:
            self.immortal.add(self.chance.choice(sorted(self.running)))

    def unstick(self) -> None:
        if self.immortal:
            self.end(self.immortal.pop(), -9)

    def reap(self) -> None:
        while self.exits:
            self.tell(self.exits.pop(0))

    def impostor(self) -> None:
        self.tell(e.Ready("client", 1))
        self.tell(e.Exited("client", 1, 0, False, 0.5))
        self.tell(e.Beat("nobody", 1, "", 0, {}))

    def wait(self) -> None:
        self.advance(self.chance.choice((0.05, 0.3, 1.0, 6.0, 20.0, 40.0, 400.0)))

    def freeze(self) -> None:
        self.advance(self.chance.choice((0.1, 10.0)), self.chance.choice((1.5, 3.0, 60.0, 90000.0)))

    def command(self) -> None:
        self.tell(
            self.chance.choice(
                (
                    e.Restart("client"),
                    e.Restart("runner"),
                    e.Switched(frozenset({"probe"})),
                    e.Switched(frozenset()),
                )
            )
        )

    def calm(self, seconds: float) -> None:
        """Everything works for a while: forks are answered, whoever runs says what is expected of
        it.
        """
        until = self.now + seconds
        while self.now < until and self.left is None:
            while self.immortal:
                self.unstick()
            self.reap()
            while self.asked:
                self.fork()
            for pid, name in list(self.running.items()):
                word = {
                    STARTING: e.Hello(name, pid, {}),
                    INIT: e.Ready(name, pid),
                }.get(self.workers.lives[name].state)
                self.heard[pid] = self.now
                self.tell(word or e.Beat(name, pid, "", 0, {}))
                if name == "setup" and self.workers.lives[name].state == READY:
                    self.tell(e.Done(name, pid, "made"))
                if pid in self.running and self.workers.lives[name].state == STOPPING:
                    self.end(pid, 0)
            self.advance(min(4.0, max(0.05, states.next_due(self.workers) - self.now)))


_HAPPENINGS = (
    *(World.fork,) * 6,
    *(World.speak,) * 10,
    *(World.wait,) * 4,
    *(World.reap,) * 4,
    *(World.die,) * 2,
    World.refuse_fork,
    World.lose_answer,
    World.stick,
    World.unstick,
    World.impostor,
    World.freeze,
    World.command,
)
