"""How long to wait before the next try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.backoff import doubled_pause_s, next_pause_s


def test_each_failure_has_its_row_and_the_last_one_repeats() -> None:
    assert [next_pause_s(tries, (1.0, 5.0, 60.0)) for tries in (1, 2, 3, 4, 99)] == [
        1.0,
        5.0,
        60.0,
        60.0,
        60.0,
    ]


def test_a_doubled_pause_ends_at_the_longest() -> None:
    pauses = [doubled_pause_s(tries, 0.25, 60.0) for tries in (1, 2, 3, 9, 10)]

    assert pauses == [0.25, 0.5, 1.0, 60.0, 60.0]


@given(st.integers(-5, 10**9))
def test_no_number_of_failures_gives_no_pause(tries: int) -> None:
    assert 0.25 <= doubled_pause_s(tries, 0.25, 60.0) <= 60.0
    assert next_pause_s(tries, (0.25, 60.0)) in (0.25, 60.0)
