"""A worker's life told step by step: a table and its clock, for tests of single transitions."""

from __future__ import annotations

from typing import Any

from waagent.protocol.state_table import (
    BACKOFF,
    DONE,
    PARKED,
    READY,
    RESIDENT,
    STARTING,
    WorkerRow,
)
from waagent.supervisor import events as e
from waagent.supervisor import states
from waagent.supervisor.roster import ROOT_ACCOUNT, Row
from waagent.supervisor.states import Life, Workers, begin
from waagent.supervisor.transitions import step

NOBODY = frozenset[str]()


def a_row(name: str = "client", kind: str = RESIDENT, **fields: Any) -> Row:
    fields = {"account": ROOT_ACCOUNT, "serves": False, **fields}
    return Row(name=name, kind=kind, capabilities=(), memory_mib=64, pids=64, nofile=64, **fields)


class Story:
    """A table and its clock; each word advances nothing, ``at`` does."""

    def __init__(
        self, *rows: Row, results: dict[str, str] | None = None, off: tuple[str, ...] = ()
    ) -> None:
        before = {
            name: WorkerRow(name, state=DONE, result=result)
            for name, result in (results or {}).items()
        }
        self.workers: Workers = begin(rows or (a_row(),), off, before)
        self.now = 100.0
        self.actions: list[Any] = []
        self.tick()

    def say(self, event: Any) -> tuple[Any, ...]:
        self.workers, actions = step(self.workers, event, self.now)
        self.actions += actions
        return actions

    def tick(
        self, lag: float = 0.0, stalled: frozenset[str] = NOBODY, occupied: frozenset[str] = NOBODY
    ) -> tuple[Any, ...]:
        return self.say(e.Tick(lag, stalled, occupied))

    def wait(self, seconds: float, **tick: Any) -> None:
        """Let an unhurried loop see ``seconds``."""
        until = self.now + seconds
        for _ in range(10_000):
            if states.next_due(self.workers) > until:
                break
            self.now = max(self.now, states.next_due(self.workers))
            self.tick(**tick)
        self.now = until

    def retry(self) -> None:
        """Let time go by until the next try."""
        for _ in range(100):
            if self.state() not in (BACKOFF, PARKED):
                break
            self.now = max(self.now, states.next_due(self.workers))
            self.tick()

    def run(self, name: str = "client", pid: int = 7, upto: str = READY) -> None:
        assert self.state(name) == STARTING, self.state(name)
        self.say(e.Forked(name, self.workers.lives[name].run, pid))
        if upto != STARTING:
            self.say(e.Hello(name, pid, {}))
        if upto == READY:
            self.say(e.Ready(name, pid))

    def exit(
        self,
        name: str = "client",
        pid: int = 7,
        status: int = -9,
        left: bool = False,
        chance: float = 0.5,
    ) -> tuple[Any, ...]:
        return self.say(e.Exited(name, pid, status, left, chance))

    def hang(self) -> tuple[Any, ...]:
        """Silent for its limit and the doubt after it; what is done then."""
        self.now += 35
        assert self.tick() == ()
        self.now += 0.5
        return self.tick()

    def state(self, name: str = "client") -> str:
        return self.workers.lives[name].state

    def life(self, name: str = "client") -> Life:
        return self.workers.lives[name]

    def did(self, kind: type) -> list[Any]:
        return [action for action in self.actions if isinstance(action, kind)]
