"""A repeated fault: a line at once, after a minute, then hourly with its count, one when it
ends.
"""

from __future__ import annotations

import io
import logging

from waagent.protocol.base.repeated_faults import KINDS_LIMIT, Faults


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_log() -> tuple[logging.Logger, io.StringIO]:
    text = io.StringIO()
    log = logging.Logger("test")
    log.addHandler(logging.StreamHandler(text))
    return log, text


def test_a_fault_each_second_for_a_day_gives_25_lines_and_one_at_its_end() -> None:
    log, text = a_log()
    clock = Clock()
    faults = Faults(log, clock)

    for _ in range(24 * 3600):
        faults.seen("poll", "no answer: 168.63.129.16: retried in 1 s")
        clock.now += 1
    faults.ended("poll", "answered again")

    lines = text.getvalue().splitlines()
    assert lines[0] == "no answer: 168.63.129.16: retried in 1 s"
    assert lines[1] == "no answer: 168.63.129.16: retried in 1 s times=61 since_s=60"
    assert lines[2].endswith("times=3661 since_s=3660")
    assert lines[-1] == "answered again after_s=86400 times=86400"
    assert len(lines) == 26


def test_the_end_of_a_fault_that_was_not_is_silent() -> None:
    log, text = a_log()

    Faults(log, Clock()).ended("poll", "answered again")

    assert text.getvalue() == ""


def test_kinds_from_outside_are_bounded() -> None:
    log, _ = a_log()
    faults = Faults(log, Clock())

    for number in range(10 * KINDS_LIMIT):
        faults.seen(f"kind {number}", "text")

    assert len(faults._known) == KINDS_LIMIT
