"""From the start of a worker to READY, and what it says afterwards: each transition with all that it
does, in order: what is sent, killed, noted, and when the next look is due.
"""

from __future__ import annotations

import pytest
from life_story import NOBODY, Story, a_row

from waagent.protocol.state_table import (
    BACKOFF,
    IDLE,
    INIT,
    KILL,
    OFF,
    ONDEMAND,
    ONESHOT,
    READY,
    STARTING,
    STOPPING,
)
from waagent.supervisor import events as e
from waagent.supervisor import transitions
from waagent.supervisor.states import begin
from waagent.supervisor.transitions import step

CLIENT = frozenset({"client"})


# starts
def test_the_first_tick_starts_what_should_run_and_nothing_else() -> None:
    rows = (a_row(), a_row("probe", ONDEMAND), a_row("off"))

    workers, actions = step(begin(rows, ("off",), {}), e.Tick(0.0, NOBODY, NOBODY), 50.0)

    assert actions == (e.Start("client", 1),)
    assert [life.state for life in workers.lives.values()] == [STARTING, IDLE, OFF]
    client = workers.lives["client"]
    assert (client.since, client.due, client.run) == (50.0, 55.0, 1)


def test_a_start_goes_through_gate_hello_and_ready() -> None:
    story = Story()

    forked = story.say(e.Forked("client", 1, 7))
    story.now += 2
    hello = story.say(e.Hello("client", 7, {"uid": 5}))
    init = story.life()
    story.now += 3
    ready = story.say(e.Ready("client", 7))

    assert (forked, hello, ready) == ((e.Open("client"),), (e.Configure("client"),), ())
    assert (init.state, init.since, init.due, init.beat_at) == (INIT, 102.0, 132.0, 102.0)
    assert init.guard == {"uid": 5}
    life = story.life()
    assert (life.state, life.due, life.ready_at, life.beat_at) == (READY, 140.0, 105.0, 105.0)


def test_the_hello_limit_begins_with_the_fork() -> None:
    story = Story()
    story.now += 4

    story.say(e.Forked("client", 1, 7))

    assert (story.life().since, story.life().due) == (104.0, 109.0)


@pytest.mark.parametrize("run", [0, 2])
def test_a_fork_of_another_run_is_nobody(run: int) -> None:
    story = Story()

    assert story.say(e.Forked("client", run, 7)) == ()
    assert story.say(e.StartFailed("client", run, "no process left")) == ()
    assert (story.state(), story.life().pid) == (STARTING, None)


def test_a_second_fork_and_a_failure_after_the_fork_change_nothing() -> None:
    story = Story()
    story.run(upto=STARTING)

    assert story.say(e.Forked("client", 1, 8)) == ()
    assert story.say(e.StartFailed("client", 1, "no process left")) == ()
    assert (story.state(), story.life().pid) == (STARTING, 7)


def test_a_fork_that_comes_when_nobody_waits_for_it_changes_nothing() -> None:
    story = Story()
    story.run()
    story.exit()

    assert story.say(e.Forked("client", 1, 8)) == () and story.life().pid is None


def test_a_failed_start_closes_the_gate_and_is_tried_again() -> None:
    story = Story()

    actions = story.say(e.StartFailed("client", 1, "no process left"))

    assert actions == (
        e.Note("warning", "client", "not started: no process left"),
        e.Abandon("client"),
    )
    life = story.life()
    assert (life.state, life.last_exit, life.reason) == (
        BACKOFF,
        "not started",
        "no process left",
    )
    assert (life.short_runs, life.due) == (0, 100.5)


def test_starts_that_the_zygote_cannot_do_never_park_a_worker_and_are_said_once() -> None:
    story = Story()
    story.say(e.StartFailed("client", 1, "no process left"))
    said = []

    for run in range(2, 102):
        story.wait(0.5)
        said += story.say(e.StartFailed("client", run, "no process left"))

    assert (story.state(), story.life().short_runs) == (BACKOFF, 0)
    assert said == [e.Abandon("client")] * 100
    story.wait(0.5)
    assert (story.state(), story.life().run) == (STARTING, 102)


def test_a_zygote_that_does_not_answer_is_a_failed_start() -> None:
    story = Story()
    story.wait(5.4)
    story.now += 0.1
    actions = story.tick()

    assert actions == (
        e.Note("warning", "client", "not started: the zygote did not start it in time"),
        e.Abandon("client"),
    )
    assert (story.state(), story.life().due) == (BACKOFF, pytest.approx(story.now + 0.5))


def test_no_hello_is_said_and_killed() -> None:
    story = Story()
    story.run(upto=STARTING)
    story.now += 5.0
    assert story.tick() == () and story.life().due == 105.5
    story.now += 0.5

    actions = story.tick()

    assert actions == (
        e.Note("warning", "client", "no hello within 5 s, killed"),
        e.Kill("client"),
    )
    life = story.life()
    assert (life.state, life.reason, life.due) == (KILL, "no hello", 106.5)


# what workers say
def test_a_heartbeat_is_kept_and_moves_the_limit() -> None:
    story = Story()
    story.run()
    story.say(e.Beat("client", 7, "polls", 1, {"a": 1, "b": 2}))
    story.now += 20

    story.say(e.Beat("client", 7, "waits", 2, {"b": 3}))

    life = story.life()
    assert (life.doing, life.beat_at, life.due) == ("waits", 120.0, 155.0)
    assert life.facts == {"a": 1, "b": 3}


def test_facts_are_few() -> None:
    story = Story()
    story.run()

    story.say(e.Beat("client", 7, "", 1, {f"old{number}": 0 for number in range(10)}))
    story.say(e.Beat("client", 7, "", 1, {f"new{number}": 0 for number in range(10)}))

    kept = list(story.life().facts)
    assert len(kept) == transitions.FACTS_KEPT and kept[-1] == "new9" and "old0" not in kept


def test_a_heartbeat_ends_doubt_and_what_was_doubled() -> None:
    story = Story()
    story.run()
    story.now += 35
    story.tick()
    story.now += 0.5
    story.tick(stalled=CLIENT)
    assert (story.life().doubled, story.life().due) == (1, 170.5)
    story.now += 40
    story.tick()

    story.say(e.Beat("client", 7, "", 1, {}))

    assert (story.life().doubled, story.life().doubted) == (0, False)
    assert story.life().due == story.now + 35


def test_a_heartbeat_before_ready_moves_no_limit() -> None:
    story = Story()
    story.run(upto=INIT)
    story.now += 20

    story.say(e.Beat("client", 7, "mounts", 1, {}))

    assert (story.life().due, story.life().beat_at) == (130.0, 120.0)


def test_a_lease_counts_from_now_and_its_end_gives_the_rest_back() -> None:
    story = Story()
    story.run()
    story.now += 10

    story.say(e.Busy("client", 7, 100, "mkfs", 1))
    leased = story.life()
    story.say(e.Busy("client", 7, 0, "", 1))

    assert (leased.lease_until, leased.due, leased.beat_at) == (210.0, 210.0, 110.0)
    assert (leased.doing, leased.lease_progress) == ("mkfs", 1)
    life = story.life()
    assert (life.lease_until, life.due, life.doing) == (110.0, 145.0, "mkfs")


@pytest.mark.parametrize(("asked_s", "granted_s"), [(9000, 600), (-5, 0), (0.5, 0.5)])
def test_a_lease_has_bounds(asked_s: float, granted_s: float) -> None:
    story = Story()
    story.run()

    story.say(e.Busy("client", 7, asked_s, "mkfs", 1))

    assert story.life().lease_until == 100.0 + granted_s
    assert story.life().due == max(135.0, 100.0 + granted_s)


def test_a_short_lease_takes_nothing_from_the_limit_of_its_state() -> None:
    story = Story()
    story.run(upto=INIT)
    story.now += 10

    story.say(e.Busy("client", 7, 5, "mounts", 1))
    during = story.life().due
    story.say(e.Busy("client", 7, 50, "mounts", 2))
    longer = story.life().due
    story.say(e.Busy("client", 7, 0, "", 2))

    assert (during, longer, story.life().due) == (130.0, 160.0, 140.0)


def test_a_lease_ends_doubt_and_what_was_doubled() -> None:
    story = Story()
    story.run()
    story.now += 35
    story.tick()
    story.now += 0.5
    story.tick(stalled=CLIENT)
    story.now += 70
    story.tick()
    assert story.life().doubted and story.life().doubled == 1

    story.say(e.Busy("client", 7, 50, "mkfs", 1))

    assert (story.life().doubled, story.life().doubted) == (0, False)


def test_a_lease_without_progress_is_a_heartbeat_that_keeps_what_it_does() -> None:
    story = Story()
    story.run()
    story.say(e.Beat("client", 7, "", 1, {"a": 1}))
    story.say(e.Busy("client", 7, 50, "mkfs", 3))
    story.now += 10

    story.say(e.Busy("client", 7, 90, "again", 3))

    life = story.life()
    assert (life.lease_until, life.due, life.doing, life.beat_at) == (150.0, 150.0, "mkfs", 110.0)
    assert (life.lease_progress, life.facts) == (3, {"a": 1})


def test_the_shortest_lease_is_one_too() -> None:
    story = Story()
    story.run(upto=INIT)
    story.now += 10

    story.say(e.Busy("client", 7, 1, "mounts", 3))
    granted = story.life()
    story.now += 0.5
    story.say(e.Busy("client", 7, 1, "again", 3))

    assert (granted.lease_until, granted.due, granted.doing) == (111.0, 130.0, "mounts")
    assert (granted.lease_progress, story.life().lease_until) == (3, 111.0)


def test_a_lease_holds_over_ready() -> None:
    story = Story()
    story.run(upto=INIT)
    story.say(e.Busy("client", 7, 100, "mounts", 1))

    story.say(e.Ready("client", 7))

    assert story.life().due == 200.0


def test_words_in_the_wrong_state_change_nothing() -> None:
    story = Story(a_row(kind=ONESHOT))
    story.run(upto=STARTING)
    assert story.say(e.Ready("client", 7)) == () and story.state() == STARTING
    assert story.say(e.Done("client", 7, "x")) == () and story.state() == STARTING
    story.say(e.Busy("client", 7, 50, "mkfs", 1))
    assert story.life().lease_until == 0.0
    story.say(e.Hello("client", 7, {}))
    story.say(e.Ready("client", 7))

    assert story.say(e.Hello("client", 7, {})) == () and story.state() == READY
    assert story.say(e.Ready("client", 7)) == ()


def test_a_process_that_is_not_the_present_one_is_not_heard() -> None:
    story = Story()
    story.run()

    for word in (e.Beat("client", 8, "I", 1, {}), e.Done("client", 8, "x")):
        assert story.say(word) == ()
    assert story.exit(pid=8) == ()
    assert story.say(e.Ready("nobody", 7)) == () and story.say(e.Restart("nobody")) == ()

    assert (story.state(), story.life().doing) == (READY, "")


def test_a_resident_worker_is_never_done() -> None:
    story = Story()
    story.run()

    assert story.say(e.Done("client", 7, "x")) == ()
    assert (story.state(), story.life().result) == (READY, None)


def test_a_one_shot_that_is_done_has_five_seconds_to_end() -> None:
    story = Story(a_row(kind=ONESHOT))
    story.run()

    assert story.say(e.Done("client", 7, "azureuser")) == ()

    life = story.life()
    assert (life.state, life.due, life.asked) == (STOPPING, 105.0, True)
    assert (life.result, life.doing) == ("azureuser", "azureuser")
