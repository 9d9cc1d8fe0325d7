"""Each transition with all that it does, in order: what is sent, killed, noted, and when the next
look is due.
"""

from __future__ import annotations

import pytest
from life_story import NOBODY, Story, a_row

from waagent.protocol import exit_codes
from waagent.protocol.state_table import (
    BACKOFF,
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
    STOPPING,
    STUCK,
    WorkerRow,
)
from waagent.supervisor import events as e
from waagent.supervisor import transitions
from waagent.supervisor.states import NEVER, begin, next_due
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


# hangs and kills
def hung(story: Story) -> tuple[object, ...]:
    story.now += 35
    assert story.tick() == ()
    story.now += 0.5
    return story.tick()


def test_a_hung_worker_is_noted_asked_for_its_stack_and_killed() -> None:
    story = Story()
    story.run()

    assert hung(story) == (
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
    hung(story)
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
    hung(story)
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
    hung(story)
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
    hung(story)
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
