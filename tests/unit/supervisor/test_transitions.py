"""What the life function promises, sentence by sentence of its table."""

from __future__ import annotations

import pytest
from life_story import NOBODY, Story, a_row

from waagent.protocol import exit_codes
from waagent.protocol.state_table import (
    BACKOFF,
    DONE,
    HUNG,
    IDLE,
    INIT,
    KILL,
    OFF,
    ONDEMAND,
    ONESHOT,
    PARKED,
    READY,
    STARTING,
    STUCK,
)
from waagent.supervisor import events as e
from waagent.supervisor import states, transitions
from waagent.supervisor.roster import WAAGENT


def test_a_gate_opens_only_after_the_pid_is_known() -> None:
    story = Story()

    actions = story.say(e.Forked("client", 1, 7))

    assert e.Open("client") in actions and story.workers.lives["client"].pid == 7


def test_a_worker_without_hello_is_killed_after_5_s() -> None:
    story = Story()
    story.run(upto=STARTING)

    story.wait(5.6)

    assert story.state() == KILL and e.Kill("client") in story.actions


def test_a_good_run_that_ends_is_replaced_at_once() -> None:
    story = Story()
    story.run()
    story.wait(6)

    story.exit()

    assert story.state() == STARTING and story.workers.lives["client"].restarts == 1


@pytest.mark.parametrize(
    ("failures", "low_s", "high_s"), [(1, 0.2, 0.3), (3, 0.8, 1.2), (7, 12.8, 19.2)]
)
def test_short_runs_wait_ever_longer(failures: int, low_s: float, high_s: float) -> None:
    waits = []
    for chance in (0.0, 0.999):
        story = Story()
        for number in range(failures):
            story.run(pid=number)
            story.exit(pid=number, chance=chance)
            waits.append(story.workers.lives["client"].due - story.now)
            story.retry() if number + 1 < failures else None

    assert (waits[failures - 1], waits[-1]) == pytest.approx((low_s, high_s), rel=0.01)


def test_eight_short_runs_park_and_a_try_follows_every_5_min() -> None:
    story = Story()
    for pid in range(8):
        story.run(pid=pid)
        story.exit(pid=pid)
        story.retry() if pid < 7 else None
    assert story.state() == PARKED

    story.wait(300)

    assert story.state() == STARTING


def test_a_silent_worker_is_hung_then_killed_and_replaced_within_38_s() -> None:
    story = Story()
    story.run()

    story.wait(36)
    hung = story.state()
    story.wait(1.2)

    assert (hung, story.state()) == (HUNG, KILL)
    assert e.TakeStack("client") in story.actions


def test_six_hangs_within_an_hour_park() -> None:
    story = Story()
    for pid in range(6):
        story.run(pid=pid)
        story.wait(37)
        story.exit(pid=pid)
        story.retry() if pid < 5 else None

    assert story.state() == PARKED


def test_a_lease_holds_off_the_verdict_and_needs_progress_to_be_renewed() -> None:
    story = Story()
    story.run()
    story.say(e.Busy("client", 7, 600, "mkfs", 1))
    story.wait(590)
    assert story.state() == READY

    story.say(e.Busy("client", 7, 600, "mkfs", 1))
    story.wait(37)

    assert story.state() in (HUNG, KILL)


def test_a_worker_in_state_d_gets_twice_the_time_twice() -> None:
    story = Story()
    story.run()

    story.wait(100, stalled=frozenset({"client"}))
    before = story.state()
    story.wait(43, stalled=frozenset({"client"}))

    assert (before, story.state()) == (READY, KILL)


def test_a_late_turn_moves_the_limit() -> None:
    story = Story()
    story.run()
    story.now += 60

    story.tick(lag=25.0)
    story.wait(1.0)

    assert story.state() == READY


def test_a_killed_process_that_stays_is_stuck_and_not_replaced_meanwhile() -> None:
    story = Story()
    story.run()

    story.wait(60)

    assert story.state() == STUCK
    story.exit()
    story.wait(1)
    assert story.state() == STARTING


def test_tools_left_behind_hold_off_the_next_run_of_a_worker_that_changes_the_system() -> None:
    story = Story(a_row(changes_system=True))
    story.run()
    story.wait(10)

    story.exit(left=True)
    story.wait(0.5, occupied=frozenset({"client"}))
    held = story.state()
    story.wait(0.2)

    assert (held, story.state()) == (KILL, STARTING)


def test_a_one_shot_with_a_result_is_done_whatever_its_exit_status() -> None:
    story = Story(a_row(kind=ONESHOT), a_row("runner", after=("client",)))
    story.run()
    assert story.state("runner") == IDLE

    story.say(e.Done("client", 7, "azureuser"))
    story.exit(status=3)

    assert (story.state(), story.workers.lives["client"].result) == (DONE, "azureuser")
    assert story.state("runner") == STARTING


def test_a_result_of_this_boot_is_kept() -> None:
    story = Story(a_row(kind=ONESHOT), results={"client": "azureuser"})

    assert story.state() == DONE and not story.did(e.Start)


def test_other_numbers_are_told_to_the_wanted_worker() -> None:
    story = Story(a_row(wants=("probe",)), a_row("probe", ONDEMAND))
    story.run()
    story.say(e.Wanted("client", "probe", (80,)))
    story.run("probe", 8)

    actions = story.say(e.Wanted("client", "probe", (80, 443)))

    assert e.Configure("probe") in actions and story.workers.lives["probe"].numbers == (80, 443)


def test_a_want_that_the_roster_does_not_list_changes_nothing() -> None:
    story = Story(a_row(), a_row("probe", ONDEMAND))
    story.run()

    story.say(e.Wanted("client", "probe", (80,)))

    assert story.state("probe") == IDLE


def test_an_on_demand_worker_that_is_done_ends_until_it_is_wanted_again() -> None:
    story = Story(a_row(wants=("keys",)), a_row("keys", ONDEMAND))
    story.run()
    story.say(e.Wanted("client", "keys", ()))
    story.run("keys", 8)

    story.say(e.Done("keys", 8, "2 certificates"))
    story.exit("keys", 8, 0)

    assert (story.state("keys"), story.workers.lives["keys"].restarts) == (IDLE, 0)


def test_a_switched_off_worker_stops_and_comes_back() -> None:
    story = Story()
    story.run()

    story.say(e.Switched(frozenset({"client"})))
    story.exit(status=0)
    off = story.state()
    story.say(e.Switched(NOBODY))

    assert (off, story.state()) == (OFF, STARTING)


def test_an_unprivileged_worker_that_exits_with_77_is_tried_again_like_any_other() -> None:
    story = Story(a_row(account=WAAGENT))
    story.run(upto=INIT)

    story.exit(status=77)

    life = story.workers.lives["client"]
    assert (life.state, life.last_exit, life.short_runs) == (BACKOFF, "exit 77", 1)
    assert life.row.account == WAAGENT and e.Start._fields == ("name", "run")


def test_those_who_serve_stop_last_and_the_end_comes_when_all_are_gone() -> None:
    story = Story(a_row("server", serves=True), a_row())
    story.run("server", 8)
    story.run()

    story.say(e.End(0))
    first = story.did(e.SayStop)
    story.exit(status=0)
    story.exit("server", 8, 0)

    assert first == [e.SayStop("client")] and story.did(e.SayStop)[1:] == [e.SayStop("server")]
    assert story.actions[-1] == e.Leave(0)


def test_stop_ends_even_with_processes_that_cannot_die() -> None:
    story = Story(a_row("server", serves=True), a_row(changes_system=True))
    story.run("server", 8)
    story.run()

    story.say(e.End(0))
    story.wait(transitions.END_LIMIT_S + transitions.GIVE_UP_S + 0.1)

    assert story.did(e.Leave) == [e.Leave(0)]


def test_an_upgrade_waits_for_the_last_lease_and_starts_nothing() -> None:
    story = Story(a_row(), a_row("other"))
    for name, pid in (("client", 7), ("other", 8)):
        story.run(name, pid)
    story.say(e.Busy("client", 7, 50, "mkfs", 1))
    story.exit("other", 8)

    story.say(e.Upgrade())
    story.wait(20)
    assert (story.state("other"), story.workers.end_by) == (BACKOFF, states.NEVER)
    story.say(e.Busy("client", 7, 0, "", 1))
    story.exit(status=0)

    assert story.did(e.Leave) == [e.Leave(exit_codes.UPGRADE)]


def test_a_parked_worker_is_started_at_once_when_root_asks() -> None:
    story = Story()
    for pid in range(8):
        story.run(pid=pid)
        story.exit(pid=pid)
        story.retry() if pid < 7 else None

    story.say(e.Restart("client"))

    assert story.state() == STARTING
