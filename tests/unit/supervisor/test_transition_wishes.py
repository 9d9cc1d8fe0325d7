"""Wishes of workers and of people: each transition with all that it does, in order."""

from __future__ import annotations

from life_story import NOBODY, Story, a_row

from waagent.protocol.state_table import (
    IDLE,
    KILL,
    OFF,
    ONDEMAND,
    READY,
    STARTING,
    STOPPING,
    WorkerRow,
)
from waagent.supervisor import events as e
from waagent.supervisor.states import NEVER, begin

CLIENT = frozenset({"client"})


# wishes
def two_with_a_wish() -> Story:
    story = Story(a_row(wants=("probe",)), a_row("probe", ONDEMAND))
    story.run()
    assert story.say(e.Wanted("client", "probe", (80,))) == (e.Start("probe", 1),)
    story.run("probe", 8)
    return story


def test_the_same_numbers_again_are_not_told() -> None:
    story = two_with_a_wish()

    assert story.say(e.Wanted("client", "probe", (80,))) == ()
    assert story.say(e.Wanted("client", "probe", (443,))) == (e.Configure("probe"),)


def test_numbers_for_one_that_does_not_run_yet_come_with_its_hello() -> None:
    story = Story(a_row(wants=("probe",)), a_row("probe", ONDEMAND))
    story.run()
    story.say(e.Wanted("client", "probe", (80,)))
    story.run("probe", 8, upto=STARTING)

    assert story.say(e.Wanted("client", "probe", (443,))) == ()
    assert story.say(e.Hello("probe", 8, {})) == (e.Configure("probe"),)


def test_one_that_nobody_wants_any_more_is_asked_to_stop_and_not_configured() -> None:
    story = two_with_a_wish()

    actions = story.say(e.Unwanted("client", "probe"))

    assert actions == (e.SayStop("probe"),)
    life = story.life("probe")
    assert (life.state, life.due, life.reason) == (STOPPING, 105.0, "no longer wanted")
    assert story.exit("probe", 8, 0) == ()
    assert (story.state("probe"), story.life("probe").due) == (IDLE, NEVER)
    assert story.life("probe").restarts == 0


def test_another_one_s_wish_stays() -> None:
    rows = (a_row(wants=("probe",)), a_row("other", wants=("probe",)), a_row("probe", ONDEMAND))
    story = Story(*rows)
    story.run()
    story.run("other", 8)
    story.say(e.Wanted("client", "probe", (80,)))
    story.say(e.Wanted("other", "probe", (443,)))

    story.say(e.Unwanted("other", "probe"))

    assert story.life("probe").wants == {"client": (80,)}


def test_a_wish_outlives_the_one_who_had_it_until_its_next_run_says_otherwise() -> None:
    story = two_with_a_wish()
    story.exit()
    story.wait(1)  # the try after a short run
    story.run(pid=9)
    assert story.state("probe") == READY and story.life("probe").wants == {"client": (80,)}

    story.say(e.Unwanted("client", "probe"))

    assert story.state("probe") == STOPPING and not story.life("probe").wants


def test_a_wish_that_comes_while_the_worker_ends_is_a_new_one() -> None:
    story = two_with_a_wish()
    story.say(e.Done("probe", 8, "decrypted"))
    assert story.state("probe") == STOPPING

    story.say(e.Wanted("client", "probe", (443,)))
    story.exit("probe", 8)

    assert story.state("probe") == STARTING and story.life("probe").wants == {"client": (443,)}


def test_what_was_wanted_before_the_supervisor_s_restart_is_wanted_still() -> None:
    before = {"probe": WorkerRow(wants={"client": [80]})}

    workers = begin((a_row(wants=("probe",)), a_row("probe", ONDEMAND)), (), before)

    assert workers.lives["probe"].wants == {"client": (80,)}


def test_an_on_demand_worker_that_dies_is_replaced_while_it_is_wanted() -> None:
    story = two_with_a_wish()
    story.wait(6)

    actions = story.exit("probe", 8, 1)

    assert actions == (
        e.Note("warning", "probe", "pid 8 ended: exit 1"),
        e.Start("probe", 2),
    )
    assert story.life("probe").restarts == 1


def test_two_wishes_of_one_that_is_done_are_both_fulfilled() -> None:
    story = two_with_a_wish()
    story.say(e.Done("probe", 8, "ports"))

    story.exit("probe", 8, 0)

    life = story.life("probe")
    assert (life.state, life.wants, life.result) == (IDLE, {}, None)


# what people ask for
def test_restart_asks_the_worker_to_stop_and_counts_as_no_failure() -> None:
    story = Story()
    story.run()

    actions = story.say(e.Restart("client"))

    assert actions == (e.SayStop("client"),)
    life = story.life()
    assert (life.state, life.due, life.asked) == (STOPPING, 105.0, True)
    assert life.reason == "restart asked for"
    assert story.exit(status=0) == (e.Start("client", 2),)
    assert (story.life().restarts, story.life().reason) == (1, "restart asked for")
    assert story.life().short_runs == 0


def test_restart_forgets_failures() -> None:
    story = Story()
    story.run()
    story.hang()
    story.now += 1
    story.tick()
    story.exit()

    actions = story.say(e.Restart("client"))

    assert actions == (e.Start("client", 2),)
    assert (story.life().short_runs, story.life().hangs) == (0, ())


def test_restart_of_one_that_is_not_forked_yet_abandons_it_and_starts_anew() -> None:
    story = Story()

    actions = story.say(e.Restart("client"))

    assert actions == (e.Abandon("client"), e.Start("client", 2))


def test_restart_of_one_without_a_connection_kills_it() -> None:
    story = Story()
    story.run(upto=STARTING)

    actions = story.say(e.Restart("client"))

    assert actions == (e.Kill("client"),)
    assert (story.state(), story.life().due, story.life().asked) == (KILL, 101.0, True)
    assert story.life().reason == "restart asked for"
    assert story.exit() == (e.Start("client", 2),)


def test_one_that_does_not_stop_is_killed() -> None:
    story = Story()
    story.run()
    story.say(e.Restart("client"))
    story.now += 5

    assert story.tick() == (e.Kill("client"),)
    assert (story.state(), story.life().due) == (KILL, 106.0)


def test_switched_off_is_the_reason_that_is_shown() -> None:
    story = Story(a_row(), a_row("other"))
    story.run()
    story.run("other", 8)

    actions = story.say(e.Switched(CLIENT))

    assert actions == (e.SayStop("client"),)
    assert (story.life().reason, story.state("other")) == ("off", READY)
    assert story.exit(status=0) == () and (story.state(), story.life().due) == (OFF, NEVER)
    assert story.say(e.Switched(NOBODY)) == (e.Start("client", 2),)


def test_one_that_is_switched_off_while_it_waits_for_its_fork_is_abandoned_and_off() -> None:
    story = Story()

    actions = story.say(e.Switched(CLIENT))

    assert actions == (e.Abandon("client"),)
    assert (story.state(), story.life().reason) == (OFF, "off")
