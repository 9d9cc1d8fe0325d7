"""The brake on what is asked again, the choice of a way to storage, and the spread of a fleet."""

from __future__ import annotations

import collections

from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.backoff import spread_s
from waagent.workers.fabric_client.brake import PAUSES_S, Brake
from waagent.workers.fabric_client.channels import BAD_S, Channels


def test_a_host_that_says_stale_for_ever_is_asked_six_times_in_the_first_minute() -> None:
    brake, now, asked = Brake(), 0.0, []
    while now < 600.0:
        now += brake.pause_s(now)
        asked.append(now)
        now += 0.01

    assert sum(at <= 60.0 for at in asked) <= 7
    assert sum(at > 120.0 for at in asked) <= 9


def test_after_a_quiet_time_it_is_asked_quickly_again() -> None:
    brake = Brake()
    for _ in range(10):
        brake.pause_s(0.0)

    later = brake.pause_s(10_000.0)

    assert later == PAUSES_S[0]


@given(st.lists(st.floats(0, 200), min_size=1, max_size=200))
def test_no_order_of_calls_defeats_it(waits: list[float]) -> None:
    brake, now, permitted = Brake(), 0.0, []
    for wait in waits:
        now += wait
        pause_s = brake.pause_s(now)
        assert pause_s >= 0
        permitted.append(now + pause_s)

    for start in permitted:
        assert sum(start <= at < start + 30.0 for at in permitted) <= 6


def test_the_way_that_failed_is_second_for_some_minutes() -> None:
    channels = Channels()
    channels.failed(["host"], 1000.0)

    assert channels.order(1000.0) == ["direct", "host"]
    assert channels.order(1000.0 + BAD_S) == ["host", "direct"]


def test_when_both_failed_the_host_is_first() -> None:
    channels = Channels()
    channels.failed(["host", "direct"], 1000.0)

    assert channels.order(1001.0) == ["host", "direct"]


def test_a_fleet_that_fails_together_does_not_ask_together() -> None:
    second = collections.Counter(int(spread_s(60.0)) for _ in range(200))

    assert all(48.0 <= spread_s(60.0) <= 72.0 for _ in range(100))
    assert max(second.values()) < 30
