"""Every signal is called something, whatever its number."""

from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.signal_names import signal_name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGKILL, "9 (SIGKILL)"),
        (11, "11 (SIGSEGV)"),
        (int(signal.SIGRTMIN), f"{int(signal.SIGRTMIN)} (SIGRTMIN+0)"),
        (int(signal.SIGRTMIN) + 6, f"{int(signal.SIGRTMIN) + 6} (SIGRTMIN+6)"),
        (0, "0"),
        (999, "999"),
    ],
)
def test_a_signal_has_its_number_and_its_name(number: int, name: str) -> None:
    assert signal_name(number) == name


@given(st.integers())
def test_no_number_is_without_words(number: int) -> None:
    assert signal_name(number).startswith(str(number))
