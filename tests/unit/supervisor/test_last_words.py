"""How long a supervisor that cannot start waits before init may start the next one."""

from __future__ import annotations

import os
from pathlib import Path

from waagent.supervisor import last_words


def test_the_first_try_again_is_at_once_then_slower_up_to_a_limit() -> None:
    pauses = [last_words.pause_s(failures) for failures in range(1, 12)]

    assert pauses[:5] == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == last_words.LONGEST_PAUSE_S


def test_failures_are_counted_over_processes_and_forgotten_after_a_quiet_time(
    tmp_path: Path,
) -> None:
    counted = [last_words.failures_until_now(tmp_path) for _ in range(3)]
    file = tmp_path / "failures"
    before = file.stat().st_mtime - last_words.FORGOTTEN_S - 1
    os.utime(file, (before, before))

    assert counted == [1, 2, 3]
    assert last_words.failures_until_now(tmp_path) == 1


def test_without_a_place_to_count_there_is_no_pause(tmp_path: Path) -> None:
    assert last_words.pause_s(last_words.failures_until_now(tmp_path / "absent")) == 0.0
