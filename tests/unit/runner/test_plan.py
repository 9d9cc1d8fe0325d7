"""The planner: the table desired x recorded, and that nothing runs twice, out of order or for ever,
whenever the runner dies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waagent.protocol.bus.topics import ExtensionGoal, HandlerGoal
from waagent.protocol.handler import handler_errors
from waagent.workers.extension_runner.plan import (
    DISABLE,
    ENABLE,
    ENABLED,
    FAILED_UPGRADE,
    INSTALL,
    INSTALLED,
    NOT_INSTALLED,
    UNINSTALL,
    UNINSTALLED,
    UPDATE,
    Fetch,
    Forget,
    Recorded,
    Refuse,
    Remove,
    Replace,
    Run,
    Step,
    UpdateMode,
    plan,
)


def an_extension(name: str = "", sequence: int = 0, state: str = "enabled") -> ExtensionGoal:
    return ExtensionGoal(name=name, sequence=sequence, state=state, public_settings="{}")


def a_goal(
    *extensions: ExtensionGoal,
    state: str = "enabled",
    version: str = "1.0.0",
    incarnation: int = 1,
    multi: bool = False,
    error: str = "",
) -> HandlerGoal:
    return HandlerGoal(
        "Contoso.Sample", version, state, f"incarnation_{incarnation}", multi, extensions, error
    )


def recorded(
    states: dict[str, str] | None = None,
    extensions: tuple[str, ...] = (),
    unpacked: dict[str, str] | None = None,
    outcomes: dict[str, bool] | None = None,
) -> Recorded:
    return Recorded(states or {}, frozenset(extensions), unpacked or {}, outcomes or {})


def shape(steps: tuple[Step, ...]) -> list[str]:
    words = []
    for step in steps:
        if isinstance(step, Run):
            words += ["S"] * step.writes_settings + [
                " ".join(filter(None, (step.key.operation, step.key.extension)))
            ]
        else:
            names = {
                Fetch: "D",
                Forget: "forget",
                Refuse: "refuse",
                Remove: "remove",
                Replace: "replace",
            }
            words.append(names[type(step)])
    return words


def versions_of(steps: tuple[Step, ...]) -> list[str]:
    return [step.key.version for step in steps if isinstance(step, Run)]


UPDATE_OF_INSTALLED = [
    *("D", "S", "update", "uninstall", "replace"),
    *("S", "install", "S", "enable"),
]
UPDATE_OF_ENABLED = ["D", "disable", *UPDATE_OF_INSTALLED[1:]]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, ["D", "S", "install", "S", "enable"]),
        ({"1.0.0": ENABLED}, ["S", "enable"]),
        ({"1.0.0": INSTALLED}, ["S", "enable"]),
        ({"1.0.0": NOT_INSTALLED}, ["D", "S", "install", "S", "enable"]),
        ({"1.0": ENABLED}, ["S", "enable"]),
        ({"0.9": NOT_INSTALLED}, ["D", "S", "install", "S", "enable"]),
        ({"0.9": FAILED_UPGRADE}, ["D", "S", "install", "S", "enable"]),
        ({"0.9": ENABLED}, UPDATE_OF_ENABLED),
        ({"0.9": INSTALLED}, UPDATE_OF_INSTALLED),
        ({"0.9": ENABLED, "1.0.0": FAILED_UPGRADE}, UPDATE_OF_ENABLED),
        ({"0.9": INSTALLED, "0.8": INSTALLED}, UPDATE_OF_INSTALLED),
        ({"1.1": ENABLED}, UPDATE_OF_ENABLED),
        ({"0.9": UNINSTALLED}, ["D", "replace", "S", "install", "S", "enable"]),
    ],
)
def test_an_enabled_handler_follows_the_table(states: dict[str, str], expected: list[str]) -> None:
    assert shape(plan(a_goal(an_extension()), recorded(states), "boot")) == expected


@pytest.mark.parametrize(
    ("state", "expected"), [(ENABLED, ["disable"]), (INSTALLED, []), (NOT_INSTALLED, [])]
)
def test_a_disabled_handler_follows_the_table(state: str, expected: list[str]) -> None:
    assert (
        shape(plan(a_goal(an_extension(), state="disabled"), recorded({"1.0.0": state}), "boot"))
        == expected
    )


def test_the_folder_that_is_there_is_used_when_the_version_is_written_differently() -> None:
    (step,) = plan(a_goal(version="1.0.0.0"), recorded({"1.0": ENABLED}), "boot")

    assert isinstance(step, Run) and step.key.version == "1.0"


def test_a_handler_without_settings_is_enabled_with_sequence_0() -> None:
    steps = plan(a_goal(), recorded({"1.0.0": INSTALLED}), "boot")

    assert isinstance(steps[0], Run) and (
        steps[0].key.sequence,
        steps[0].key.extension,
        steps[0].settings,
    ) == (0, "", None)


def test_the_first_extension_of_a_new_handler_installs_it_once() -> None:
    goal = a_goal(
        an_extension("one"),
        an_extension("two", 4),
        an_extension("three", state="disabled"),
        multi=True,
    )

    assert shape(plan(goal, recorded(), "boot")) == [
        "D",
        "S",
        "install one",
        "S",
        "enable one",
        "S",
        "enable two",
    ]


def test_a_deleted_extension_is_disabled_and_forgotten_and_its_neighbour_stays() -> None:
    goal = a_goal(an_extension("one"), an_extension("two", state="disabled"), multi=True)

    steps = plan(goal, recorded({"1.0.0": ENABLED}, ("one", "two")), "boot")

    assert shape(steps) == ["disable two", "forget", "S", "enable one"]


def test_a_failed_disable_of_an_extension_does_not_keep_its_files() -> None:
    goal = a_goal(an_extension("two", state="disabled"), multi=True)
    steps = plan(goal, recorded({"1.0.0": ENABLED}, ("two",)), "boot")
    assert isinstance(steps[0], Run)

    again = plan(
        goal, recorded({"1.0.0": ENABLED}, ("two",), outcomes={steps[0].key.id: False}), "boot"
    )

    assert shape(again) == ["forget"]


def test_after_a_failed_install_nothing_runs_until_the_next_goal_state() -> None:
    steps = plan(a_goal(an_extension()), recorded(), "boot")
    assert isinstance(steps[1], Run)
    failed = recorded(
        {"1.0.0": NOT_INSTALLED},
        unpacked={"1.0.0": "incarnation_1"},
        outcomes={steps[1].key.id: False},
    )

    assert plan(a_goal(an_extension()), failed, "boot") == ()
    assert shape(plan(a_goal(an_extension(), incarnation=2), failed, "boot")) == [
        "D",
        "S",
        "install",
        "S",
        "enable",
    ]


def test_a_reboot_enables_once_more_and_a_restart_of_the_agent_does_not() -> None:
    goal = a_goal(an_extension())
    (enable,) = plan(goal, recorded({"1.0.0": ENABLED}), "boot")
    assert isinstance(enable, Run)
    done = recorded({"1.0.0": ENABLED}, outcomes={enable.key.id: True})

    assert plan(goal, done, "boot") == ()
    assert shape(plan(goal, done, "next boot")) == ["S", "enable"]


@pytest.mark.parametrize(
    ("goal", "code", "words"),
    [
        (
            a_goal(error="settings are not JSON"),
            handler_errors.UNKNOWN,
            "Ran into config errors: settings are not JSON",
        ),
        (a_goal(an_extension(), an_extension()), handler_errors.UNKNOWN, "which takes one"),
        (a_goal(an_extension("../x"), multi=True), handler_errors.UNKNOWN, "not an extension name"),
        (a_goal(an_extension(sequence=-1)), handler_errors.UNKNOWN, "sequence number"),
        (a_goal(version="../1"), handler_errors.UNKNOWN, "not a handler version"),
        (a_goal(state="paused"), handler_errors.UNKNOWN, "unknown requested state"),
    ],
)
def test_what_cannot_be_done_is_said(goal: HandlerGoal, code: int, words: str) -> None:
    (step,) = plan(goal, recorded({"1.0.0": ENABLED}), "boot")

    assert isinstance(step, Refuse) and step.code == code and words in step.message


def test_an_upgrade_updates_by_the_new_version_and_a_downgrade_by_the_installed_one() -> None:
    for old, updating in (("0.9", "1.0.0"), ("1.1", "1.1")):
        steps = plan(a_goal(an_extension()), recorded({old: ENABLED}), "boot")

        assert versions_of(steps) == [old, updating, old, "1.0.0", "1.0.0"]
        (update,) = [
            step for step in steps if isinstance(step, Run) and step.key.operation == UPDATE
        ]
        assert update.update == (old, "1.0.0")


def test_an_update_disables_every_extension_of_the_old_version() -> None:
    goal = a_goal(an_extension("two"), an_extension("one", 3), multi=True)

    steps = plan(goal, recorded({"0.9": ENABLED}, ("one", "two", "three")), "boot")

    assert shape(steps)[:5] == ["D", "disable two", "disable one", "disable three", "S"]


@pytest.mark.parametrize(
    ("failing", "continues", "follows"),
    [
        (DISABLE, False, None),
        (DISABLE, True, UPDATE),
        (UPDATE, False, None),
        (UPDATE, True, None),
        (UNINSTALL, False, None),
        (UNINSTALL, True, INSTALL),
        (INSTALL, True, None),
    ],
)
def test_a_failing_step_of_an_update_stops_it_unless_the_new_manifest_says_go_on(
    failing: str, continues: bool, follows: str | None
) -> None:
    machine = _Machine(states={"0.9": ENABLED}, mode=UpdateMode(continues=continues))

    machine.follow(a_goal(an_extension()), fails={failing})

    after = machine.order[machine.order.index(failing) + 1 :]
    assert after[:1] == ([follows] if follows else [])


def test_a_failed_update_is_tried_again_without_download_or_a_second_disable() -> None:
    machine = _Machine(states={"0.9": ENABLED})
    machine.follow(a_goal(an_extension()), fails={UPDATE})
    assert machine.states == {"0.9": INSTALLED, "1.0.0": FAILED_UPGRADE}

    steps = plan(a_goal(an_extension(), incarnation=2), machine.recorded(), "boot")

    assert shape(steps) == UPDATE_OF_INSTALLED[1:]


def test_back_to_the_old_version_after_a_failed_update_removes_the_failed_one() -> None:
    machine = _Machine(states={"0.9": INSTALLED, "1.0.0": FAILED_UPGRADE})

    machine.follow(a_goal(an_extension(), version="0.9"))

    assert machine.order == [ENABLE] and machine.states == {"0.9": ENABLED}


def test_an_update_without_install_goes_from_the_old_versions_end_to_enable() -> None:
    machine = _Machine(states={"0.9": ENABLED}, mode=UpdateMode(installs=False))

    machine.follow(a_goal(an_extension()))

    assert machine.order == [DISABLE, UPDATE, UNINSTALL, ENABLE]
    assert machine.states == {"1.0.0": ENABLED}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"1.0.0": ENABLED}, ["disable", "uninstall", "remove"]),
        ({"1.0.0": INSTALLED}, ["uninstall", "remove"]),
        ({"0.9": INSTALLED, "1.0.0": FAILED_UPGRADE}, ["uninstall", "remove", "remove"]),
        ({"1.0.0": FAILED_UPGRADE}, ["remove"]),
        ({"1.0.0": NOT_INSTALLED}, ["remove"]),
        ({"1.0.0": UNINSTALLED}, ["remove"]),
        ({}, []),
    ],
)
def test_an_uninstall_follows_the_table(states: dict[str, str], expected: list[str]) -> None:
    goal = a_goal(an_extension(), state="uninstall")

    assert shape(plan(goal, recorded(states), "boot")) == expected


@pytest.mark.parametrize("fails", [{DISABLE}, {UNINSTALL}, {DISABLE, UNINSTALL}])
def test_nothing_that_fails_keeps_a_handler_from_being_uninstalled(fails: set[str]) -> None:
    machine = _Machine(states={"1.0.0": ENABLED})

    machine.follow(a_goal(an_extension(), state="uninstall"), fails=fails)

    assert machine.order == [DISABLE, UNINSTALL] and machine.states == {}


@dataclass
class _Machine:
    """A lane without effects: carries out the first step, dies whenever it is told to."""

    states: dict[str, str] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)
    unpacked: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, bool] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    mode: UpdateMode = UpdateMode()
    ran: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def recorded(self) -> Recorded:
        return Recorded(
            dict(self.states),
            frozenset(self.extensions),
            dict(self.unpacked),
            dict(self.outcomes),
            frozenset(self.disabled),
            dict.fromkeys(self.unpacked, self.mode),
        )

    def follow(self, goal: HandlerGoal, *, fails: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """To the end of one goal state; the operations in ``fails`` fail."""
        for _ in range(30):
            steps = plan(goal, self.recorded(), "boot")
            if not steps or isinstance(steps[0], Refuse):
                return
            failing = isinstance(steps[0], Run) and steps[0].key.operation in fails
            self.carry_out(steps[0], goal, succeeds=not failing)
        raise AssertionError(f"the plan does not end: {self.order}")

    def carry_out(self, step: Step, goal: HandlerGoal, *, succeeds: bool) -> None:
        if isinstance(step, Fetch) and succeeds:
            self.states[step.version] = NOT_INSTALLED
            self.unpacked[step.version] = goal.goal_state_id
        if isinstance(step, Forget):
            self.extensions.discard(step.extension)
            self.disabled.discard(step.extension)
        if isinstance(step, Remove):
            del self.states[step.version]
            self.unpacked.pop(step.version, None)
        if isinstance(step, Replace):
            del self.states[step.old]
            self.states[step.new] = NOT_INSTALLED if step.installs else INSTALLED
            self.unpacked[step.new] = goal.goal_state_id
            self.disabled |= self.extensions
            self.extensions = set()
        if isinstance(step, Run):
            self._run(step, succeeds=succeeds)

    def _run(self, step: Run, *, succeeds: bool) -> None:
        operation, version, extension = step.key.operation, step.key.version, step.key.extension
        self.ran.append(step.key.id)
        self.order.append(operation)
        self.outcomes[step.key.id] = succeeds
        if operation == UPDATE and self.states.get(version) not in (INSTALLED, ENABLED):
            self.states[version] = NOT_INSTALLED if succeeds else FAILED_UPGRADE
        if not succeeds:
            return
        if operation == ENABLE and extension:
            self.extensions.add(extension)
        if operation == DISABLE and extension:
            self.extensions.discard(extension)
            self.disabled.add(extension)
        after = {INSTALL: INSTALLED, ENABLE: ENABLED, DISABLE: INSTALLED, UNINSTALL: UNINSTALLED}
        if operation in after and not (operation == DISABLE and self.extensions):
            self.states[version] = after[operation]


_extensions = st.lists(
    st.builds(
        an_extension,
        st.sampled_from(["one", "two"]),
        st.integers(0, 2),
        st.sampled_from(["enabled", "disabled"]),
    ),
    max_size=2,
    unique_by=lambda extension: extension.name,
)
_goals = st.builds(
    lambda extensions, state, incarnation, multi, version: a_goal(
        *(extensions if multi else extensions[:1]),
        state=state,
        version=version,
        incarnation=incarnation,
        multi=multi and bool(extensions),
    ),
    _extensions,
    st.sampled_from(["enabled", "enabled", "disabled", "uninstall", "x"]),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from(["1.0.0", "1.0.0", "0.9", "1.1"]),
)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            _goals, st.sampled_from(["boot 1", "boot 2"]), st.lists(st.booleans(), max_size=8)
        ),
        max_size=8,
    )
)
def test_no_operation_ever_runs_twice_for_one_key(
    history: list[tuple[HandlerGoal, str, list[bool]]],
) -> None:
    machine = _Machine()

    for goal, boot_id, results in history:
        # the list may end anywhere: a kill -9 of the runner, then the next goal state or the same
        # again
        for succeeds in results:
            steps = plan(goal, machine.recorded(), boot_id)
            if steps:
                machine.carry_out(steps[0], goal, succeeds=succeeds)

    assert len(machine.ran) == len(set(machine.ran))


@settings(max_examples=400)
@given(
    st.lists(st.tuples(_goals, st.lists(st.booleans(), max_size=6)), max_size=5),
    _goals,
    st.builds(UpdateMode, st.booleans(), st.booleans()),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_every_goal_state_ends_in_order_whatever_was_cut_off_before(
    history: list[tuple[HandlerGoal, list[bool]]],
    goal: HandlerGoal,
    mode: UpdateMode,
    results: list[bool],
) -> None:
    machine = _Machine(mode=mode)
    for number, (earlier, cut) in enumerate(history):
        earlier = earlier._replace(goal_state_id=f"earlier_{number}")
        for succeeds in cut:
            steps = plan(earlier, machine.recorded(), "boot")
            if steps:
                machine.carry_out(steps[0], earlier, succeeds=succeeds)

    for succeeds in [*results, *[True] * 8]:
        steps = plan(goal, machine.recorded(), "boot")
        if not steps or isinstance(steps[0], Refuse):
            break
        step = steps[0]
        if isinstance(step, Run):
            state, there = machine.states.get(step.key.version), (INSTALLED, ENABLED)
            operation = step.key.operation
            assert operation not in (ENABLE, UNINSTALL) or state in there
            assert operation != DISABLE or state == ENABLED
            assert operation != INSTALL or state not in there
            assert operation != INSTALL or not set(machine.states.values()) & set(there)
        machine.carry_out(step, goal, succeeds=succeeds or not isinstance(step, Run))
    else:
        raise AssertionError(f"no end: {machine.order}")

    enabled = [version for version, state in machine.states.items() if state == ENABLED]
    assert len(enabled) <= 1
    if goal.state == "uninstall" and not goal.error:
        assert machine.states == {}
