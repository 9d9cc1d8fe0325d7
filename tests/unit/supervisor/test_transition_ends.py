"""Hangs, kills, exits and the end of all: each transition with all that it does, in order."""

from __future__ import annotations

import pytest
from life_story import Story, a_row

from waagent.protocol import exit_codes
from waagent.protocol.state_table import (
    BACKOFF,
    HUNG,
    INIT,
    KILL,
    PARKED,
    READY,
    STARTING,
    STUCK,
)
from waagent.supervisor import events as e
from waagent.supervisor import transitions
from waagent.supervisor.states import NEVER, next_due

CLIENT = frozenset({"client"})


# hangs and kills
def test_a_hung_worker_is_noted_asked_for_its_stack_and_killed() -> None:
    story = Story()
    story.run()

    assert story.hang() == (
        e.Note("error", "client", "HUNG, no heartbeat for 35 s"),
        e.TakeStack("client"),
    )
    assert (story.state(), story.life().due) == (HUNG, 136.5)
    assert story.life().reason == "no heartbeat for 35 s"
    story.now += 1
    assert story.tick() == (e.Kill("client"),)
    assert (story.state(), story.life().due, story.life().hang) == (KILL, 137.5, True)


def test_one_that_does_not_become_ready_hangs_too() -> None:
    story = Story()
    story.run(upto=INIT)
    story.now += 30
    story.tick()
    story.now += 0.5

    assert story.tick() == (
        e.Note("error", "client", "HUNG, not ready within 30 s"),
        e.TakeStack("client"),
    )


def test_who_waits_for_a_disk_gets_twice_the_limit_and_it_is_noted() -> None:
    story = Story()
    story.run()
    story.now += 35
    story.tick()
    story.now += 0.5

    actions = story.tick(stalled=CLIENT)

    text = "silent for 35 s, but it waits for disk or memory: its limit is doubled"
    assert actions == (e.Note("warning", "client", text),)
    life = story.life()
    assert (life.state, life.due, life.doubled, life.doubted) == (READY, 170.5, 1, False)


def test_a_hang_is_a_failed_run_however_long_it_was_and_keeps_its_reason() -> None:
    story = Story()
    story.run()
    story.hang()
    story.now += 1
    story.tick()

    actions = story.exit()

    assert actions == (e.Note("warning", "client", "pid 7 ended: signal 9"),)
    life = story.life()
    assert (life.state, life.short_runs, life.hangs) == (BACKOFF, 1, (136.5,))
    assert (life.reason, life.last_exit, life.hang) == (
        "no heartbeat for 35 s",
        "signal 9",
        False,
    )


def test_an_old_hang_is_forgotten() -> None:
    story = Story()
    story.run()
    story.hang()
    story.now += 1
    story.tick()
    story.exit()
    story.retry()
    story.run(pid=8)
    story.now = 136.5 + 3600

    story.exit(pid=8)

    assert story.life().hangs == ()


def test_a_kill_that_does_not_end_it_is_stuck_and_looked_at_no_more() -> None:
    story = Story()
    story.run()
    story.hang()
    story.now += 1
    story.tick()
    story.now += 1

    actions = story.tick()

    reason = "a process of it cannot be killed"
    text = f"STUCK: {reason}; it is not replaced meanwhile"
    assert actions == (e.Note("error", "client", text),)
    assert (story.state(), story.life().due, story.life().reason) == (STUCK, NEVER, reason)


def with_tools_left() -> Story:
    story = Story(a_row(changes_system=True))
    story.run()
    story.wait(6)
    story.exit(left=True)
    assert (story.state(), story.life().due) == (KILL, story.now + 0.01)
    return story


def test_tools_left_are_killed_again_for_a_second_then_they_are_stuck() -> None:
    story = with_tools_left()
    began = story.now
    for _ in range(98):
        story.now = story.life().due
        assert story.tick(occupied=CLIENT) == (e.Kill("client"),)
        assert story.life().due == pytest.approx(story.now + 0.01)
    story.now = began + 1.0

    actions = story.tick(occupied=CLIENT)

    assert [type(action) for action in actions] == [e.Note]
    assert (story.state(), story.life().due) == (STUCK, story.now + 1.0)
    story.now += 1.0
    assert story.tick(occupied=CLIENT) == () and story.life().due == story.now + 1.0
    story.now += 1.0
    assert story.tick() == (e.Start("client", 2),)


def test_tools_left_by_one_that_does_not_change_the_system_hold_nothing_off() -> None:
    story = Story()
    story.run()
    story.wait(6)

    story.exit(left=True)

    assert story.state() == STARTING


def test_nothing_left_holds_nothing_off() -> None:
    story = Story(a_row(changes_system=True))
    story.run()
    story.wait(6)

    story.exit()

    assert story.state() == STARTING


# exits
@pytest.mark.parametrize(
    ("status", "text"), [(0, "exit 0"), (1, "exit 1"), (-1, "signal 1"), (-9, "signal 9")]
)
def test_an_exit_is_noted_in_words(status: int, text: str) -> None:
    story = Story()
    story.run()

    actions = story.exit(status=status)

    assert actions == (e.Note("warning", "client", f"pid 7 ended: {text}"),)
    life = story.life()
    assert (life.last_exit, life.reason, life.pid, life.lease_until) == (text, text, None, 0.0)


@pytest.mark.parametrize(("ran_s", "state"), [(4.9, BACKOFF), (5.0, STARTING)])
def test_a_run_of_five_seconds_is_not_short(ran_s: float, state: str) -> None:
    story = Story()
    story.run()
    story.now += ran_s

    story.exit()

    assert story.state() == state


def test_a_good_run_forgets_the_short_ones() -> None:
    story = Story()
    story.run()
    story.exit()
    story.retry()
    story.run(pid=8)
    assert story.life().short_runs == 1
    story.now += 5

    story.exit(pid=8)

    assert story.life().short_runs == 0


def test_a_parked_worker_says_so_and_is_due_in_five_minutes() -> None:
    story = Story()
    for pid in range(1, 8):
        story.run(pid=pid)
        story.exit(pid=pid)
        assert story.state() == BACKOFF
        story.retry()
    story.run(pid=8)

    actions = story.exit(pid=8)

    text = "parked after 8 failed runs, 0 hangs within an hour; tried again every 300 s"
    assert actions[-1] == e.Note("error", "client", text)
    assert (story.state(), story.life().due) == (PARKED, story.now + 300.0)


def test_a_lease_ends_with_the_process() -> None:
    story = Story(a_row(), a_row("other"))
    story.run()
    story.run("other", 8)
    story.say(e.Busy("client", 7, 500, "mkfs", 1))
    story.exit()

    story.say(e.Upgrade())

    assert story.workers.end_by == story.now + transitions.END_LIMIT_S


# the end
def test_at_the_common_deadline_all_are_killed_and_two_seconds_later_we_leave() -> None:
    story = Story(a_row(changes_system=True), a_row("server", serves=True))
    story.run()
    story.run("server", 8)
    assert story.say(e.End(3)) == (e.SayStop("client"),)
    assert story.workers.end_by == 108.0
    story.wait(5)
    assert story.state() == KILL
    story.wait(1)
    assert story.state() == STUCK
    story.now = 108.0

    actions = story.tick()

    assert actions == (e.Kill("server"),)
    assert story.life("server").asked and story.state("server") == KILL
    assert (story.workers.end_by, next_due(story.workers)) == (110.0, 109.0)
    story.now = 109.9
    assert e.Leave(3) not in story.tick()
    story.now = 110.0
    assert story.tick() == (e.Leave(3),)
    story.now = 120.0
    assert story.tick() == ()


def test_when_the_last_one_ends_before_the_deadline_we_leave() -> None:
    story = Story()
    story.run()
    story.say(e.End(0))

    assert story.exit(status=0) == (e.Leave(0),)
    assert story.tick() == () and story.life().restarts == 0


def test_a_second_end_changes_nothing() -> None:
    story = Story()
    story.run()
    story.say(e.End(0))
    story.now += 3

    story.say(e.End(9))

    assert (story.workers.end_by, story.workers.status) == (108.0, 0)


def test_a_lag_moves_the_end_and_every_limit() -> None:
    story = Story(a_row(), a_row("other"))
    story.run()
    story.run("other", 8)
    story.say(e.Busy("client", 7, 100, "mkfs", 1))
    story.say(e.End(0))
    before = {name: story.life(name) for name in ("client", "other")}
    story.now += 50

    assert story.tick(lag=50.0) == ()

    for name, was in before.items():
        now = story.life(name)
        assert (now.since, now.due, now.lease_until) == (
            was.since + 50,
            was.due + 50,
            was.lease_until + 50,
        )
    assert story.workers.end_by == 158.0


def test_a_lag_gives_who_was_late_two_seconds_and_two_seconds_are_no_lag() -> None:
    story = Story()
    story.run()
    story.now += 40
    story.tick(lag=3.0)
    assert story.life().due == 142.0
    other = Story()
    other.run()
    other.now += 2

    other.tick(lag=2.0)

    assert other.life().due == 135.0


def test_an_upgrade_takes_back_what_is_not_forked_and_stops_the_others_together() -> None:
    story = Story(a_row(), a_row("other"))
    story.run()

    actions = story.say(e.Upgrade())

    assert actions == (e.Abandon("other"), e.SayStop("client"))
    assert story.life("other").reason == "another build is installed"
    assert (story.workers.end_by, story.workers.status) == (108.0, exit_codes.UPGRADE)


def test_an_upgrade_leaves_a_forked_one_and_one_with_a_lease_alone() -> None:
    story = Story(a_row(), a_row("other"))
    story.run()
    story.say(e.Busy("client", 7, 50, "mkfs", 1))
    story.run("other", 8, upto=STARTING)

    assert story.say(e.Upgrade()) == ()
    assert (story.state("other"), story.workers.end_by) == (STARTING, NEVER)
    story.now = 149.9
    assert story.tick() != () or story.workers.end_by == NEVER
    story.now = 150.0
    story.tick()
    assert story.workers.end_by == 158.0
