"""The invariants of a worker's life under 100,000 sequences of events: lost messages, clock jumps,
kills, stuck processes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from life_world import World

from waagent.protocol.state_table import DONE, READY
from waagent.supervisor import events as e
from waagent.supervisor import transitions

SEQUENCES, SHARES = 100_000, 4


@pytest.mark.parametrize("share", range(SHARES))
def test_100000_sequences_keep_the_invariants(share: int, shown: Callable[[str], None]) -> None:
    started = time.monotonic()
    events = 0
    for seed in range(share * SEQUENCES // SHARES, (share + 1) * SEQUENCES // SHARES):
        world = World(random.Random(seed))
        world.advance(0.0, 0.01)
        length = 3 + seed % 10
        for _ in range(length):
            world.happen()
        events += length
    seconds = time.monotonic() - started
    shown(
        f"life of workers, share {share + 1} of {SHARES}: {SEQUENCES // SHARES} sequences, {events}"
        f" happenings in {seconds:.0f} s"
    )


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_whatever_happened_all_is_well_after_a_calm_time(
    chance: random.Random, happenings: int
) -> None:
    world = World(chance)
    world.advance(0.0, 0.01)
    for _ in range(happenings):
        world.happen()

    world.tell(e.Switched(frozenset()))
    world.calm(700.0)

    assert {name: entry.state for name, entry in world.workers.lives.items() if name != "probe"} == {
        "client": READY, "setup": DONE, "runner": READY,
    }  # fmt: skip


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.integers(0, 80))
def test_stop_always_ends(chance: random.Random, happenings: int) -> None:
    world = World(chance)
    world.advance(0.0, 0.01)
    for _ in range(happenings):
        world.happen()

    world.tell(e.End(0))
    asked_at = world.now
    world.advance(transitions.END_LIMIT_S + transitions.GIVE_UP_S + 0.1)

    assert world.left == 0
    assert world.now - asked_at < 11
