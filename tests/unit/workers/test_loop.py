"""The loop: times in order, sources, nothing needless."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.log import Log
from waagent.workers.control import bounded, next_beat_at
from waagent.workers.loop import Loop


def run_until(loop: Loop, count: int, seen: list[str]) -> None:
    ends_at = time.monotonic() + 60
    while len(seen) < count and time.monotonic() < ends_at:
        loop.turn(0.1)


def test_timers_go_off_in_their_order_and_cancelled_ones_never() -> None:
    loop = Loop()
    seen: list[str] = []
    loop.after(0.05, lambda: seen.append("second"))
    loop.after(0.01, lambda: seen.append("first"))
    loop.after(0.02, lambda: seen.append("never")).cancel()

    run_until(loop, 2, seen)

    assert seen == ["first", "second"]


def test_a_periodic_timer_ends_when_it_cancels_itself() -> None:
    loop = Loop()
    seen: list[str] = []

    def again() -> None:
        seen.append("again")
        if len(seen) == 3:
            timer.cancel()

    timer = loop.every(0.005, again)
    for _ in range(10):
        loop.turn(0.02)

    assert seen == ["again"] * 3


def test_a_timer_that_renews_itself_at_once_does_not_starve_a_source() -> None:
    loop = Loop()
    seen: list[str] = []
    read_end, write_end = os.pipe()

    def renew() -> None:
        loop.after(0, renew)

    renew()
    loop.on_readable(read_end, lambda: seen.append(os.read(read_end, 10).decode()))
    os.write(write_end, b"x")
    run_until(loop, 1, seen)

    assert seen == ["x"]


def test_the_end_of_a_pipe_is_told() -> None:
    loop = Loop()
    seen: list[str] = []
    read_end, write_end = os.pipe()

    def at_end() -> None:
        seen.append(f"{os.read(read_end, 10)!r}")
        loop.forget(read_end)

    loop.on_readable(read_end, at_end)
    os.close(write_end)
    run_until(loop, 1, seen)
    loop.turn(0.01)

    assert seen == ["b''"]


def test_a_writable_descriptor_is_told_until_forgotten() -> None:
    loop = Loop()
    seen: list[str] = []
    _, write_end = os.pipe()

    def writable() -> None:
        seen.append("room")
        loop.forget_writable(write_end)

    loop.on_writable(write_end, writable)
    for _ in range(3):
        loop.turn(0.01)

    assert seen == ["room"]


@given(st.floats(0, 1e8), st.sampled_from([0.5, 5.0, 10.0]))
def test_the_next_beat_is_a_multiple_of_the_period_and_soon(now: float, beat_s: float) -> None:
    at = next_beat_at(now, beat_s)

    assert now < at <= now + beat_s + 1e-6
    assert at / beat_s == int(at / beat_s)


@given(st.text(), st.text())
def test_a_record_is_one_line_whatever_its_text(text: str, argument: str) -> None:
    line = written(lambda log: log.info("%s %s", text, argument))

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO fabric_client\[\d+\] [^\n\r\x00-\x1f]*\n",
        line,
    )


def test_each_line_of_a_traceback_names_its_worker() -> None:
    def fail(log: Log) -> None:
        try:
            raise ValueError("bad\nnews")
        except ValueError:
            log.exception("%s failed", "this")

    lines = written(fail).splitlines()

    assert len(lines) >= 4 and all(" ERROR fabric_client[" in line for line in lines)


def test_a_log_that_takes_nothing_stops_nobody() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        Log("fabric_client", descriptor=full.fileno()).warning("nobody hears this")


def test_decisions_are_written_only_when_asked_for() -> None:
    assert written(lambda log: log.debug("chose %s", "this")) == ""


def written(call: Callable[[Log], None]) -> str:
    """What a log writes in ``call``."""
    reading, writing = os.pipe()
    with open(reading, "rb") as file:
        try:
            call(Log("fabric_client", descriptor=writing))
        finally:
            os.close(writing)
        return file.read().decode()


@pytest.mark.parametrize("facts", [{}, {"text": "x" * 10_000, "number": 5}])
def test_facts_stay_small(facts: dict[str, object]) -> None:
    assert all(len(value) <= 400 for value in bounded(facts).values() if isinstance(value, str))


def test_a_call_that_runs_the_loop_itself_does_not_hold_back_the_others() -> None:
    loop = Loop()
    seen: list[str] = []

    def waits_for_the_other() -> None:
        run_until(loop, 1, seen)
        seen.append("waited")

    loop.after(0.001, waits_for_the_other)
    loop.after(0.002, lambda: seen.append("other"))
    time.sleep(0.01)  # both are due in the same turn
    loop.turn(0.1)

    assert seen == ["other", "waited"]
