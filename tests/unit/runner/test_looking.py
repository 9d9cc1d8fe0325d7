"""What a runner looks at is known to the one after it."""

from __future__ import annotations

from pathlib import Path

from waagent.protocol.base.log import PROCESS
from waagent.workers.extension_runner import parking
from waagent.workers.extension_runner.looking import DEATHS, FILE, Looking


def test_what_a_runner_ended_at_is_counted_by_each_successor(tmp_path: Path) -> None:
    first = Looking(tmp_path, PROCESS)
    first.begin("contoso.bad")

    second = Looking(tmp_path, PROCESS)
    before = second.begin("contoso.good")
    second.end(before)
    second.begin("contoso.bad")
    third = Looking(tmp_path, PROCESS)

    assert second.deaths("contoso.bad") == 1 and second.deaths("contoso.good") == 0
    assert third.deaths("contoso.bad") == 2
    assert Looking(tmp_path, PROCESS).deaths("contoso.bad") == 2


def test_one_look_within_another_leads_back_to_it(tmp_path: Path) -> None:
    looking = Looking(tmp_path, PROCESS)
    outer = looking.begin("contoso.outer")
    inner = looking.begin("contoso.inner")
    looking.end(inner)

    assert Looking(tmp_path, PROCESS).deaths("contoso.outer") == 1
    looking.end(outer)
    assert (tmp_path / FILE).read_bytes().strip(b"\0") == b""


def test_what_is_forgiven_is_forgotten_and_its_goal_state_too(tmp_path: Path) -> None:
    Looking(tmp_path, PROCESS).begin("contoso.bad")
    looking = Looking(tmp_path, PROCESS)
    looking.note_goal_state("contoso.bad", "incarnation_7")
    assert Looking(tmp_path, PROCESS).goal_state_of("contoso.bad") == "incarnation_7"

    looking.forgive("contoso.bad")

    last = Looking(tmp_path, PROCESS)
    assert (last.deaths("contoso.bad"), last.goal_state_of("contoso.bad")) == (0, "")


def test_a_count_of_nonsense_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / DEATHS).write_text('{"deaths": {"contoso.bad": "many"}}')

    assert Looking(tmp_path, PROCESS).deaths("contoso.bad") == 0


def test_what_was_raised_is_said_with_its_place_and_when_it_is_tried_again() -> None:
    try:
        raise TypeError("a list is no number")
    except TypeError as error:
        said = parking.raised(error)

    assert "TypeError: a list is no number" in said.message
    assert "test_looking.py:" in said.message
    assert "tried again with the next goal state" in said.message
