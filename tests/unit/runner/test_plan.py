"""The planner: rows 1-4, 10, 11, 16-18 of the table, and that nothing runs twice whenever the
runner dies.
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
    Fetch,
    Forget,
    Recorded,
    Refuse,
    Run,
    Step,
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
            words.append({Fetch: "D", Forget: "forget", Refuse: "refuse"}[type(step)])
    return words


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
        ({"0.9": ENABLED}, ["refuse"]),
        ({"1.1": INSTALLED}, ["refuse"]),
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
        (a_goal(version="2.0"), handler_errors.UPDATE_FAILED, "not in this version of the agent"),
        (
            a_goal(state="uninstall"),
            handler_errors.UNINSTALL_FAILED,
            "not in this version of the agent",
        ),
    ],
)
def test_what_cannot_be_done_is_said(goal: HandlerGoal, code: int, words: str) -> None:
    (step,) = plan(goal, recorded({"1.0.0": ENABLED}), "boot")

    assert isinstance(step, Refuse) and step.code == code and words in step.message


@dataclass
class _Machine:
    """A lane without effects: carries out the first step, dies whenever it is told to."""

    states: dict[str, str] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)
    unpacked: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, bool] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def recorded(self) -> Recorded:
        return Recorded(
            dict(self.states), frozenset(self.extensions), dict(self.unpacked), dict(self.outcomes)
        )

    def carry_out(self, step: Step, goal: HandlerGoal, *, succeeds: bool) -> None:
        if isinstance(step, Fetch) and succeeds:
            self.states[step.version] = NOT_INSTALLED
            self.unpacked[step.version] = goal.goal_state_id
        if isinstance(step, Forget):
            self.extensions.discard(step.extension)
        if isinstance(step, Run):
            self.ran.append(step.key.id)
            self.order.append(step.key.operation)
            self.outcomes[step.key.id] = succeeds
            if succeeds:
                self.states[step.key.version] = {
                    INSTALL: INSTALLED,
                    ENABLE: ENABLED,
                    DISABLE: INSTALLED,
                }[step.key.operation]
                if step.key.operation == ENABLE:
                    self.extensions.add(step.key.extension)


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
    lambda extensions, state, incarnation, multi: a_goal(
        *(extensions if multi else extensions[:1]),
        state=state,
        incarnation=incarnation,
        multi=multi and bool(extensions),
    ),
    _extensions,
    st.sampled_from(["enabled", "enabled", "disabled", "uninstall", "x"]),
    st.integers(1, 3),
    st.booleans(),
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


@given(
    _goals.filter(lambda goal: goal.state == "enabled"),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_a_goal_state_ends_and_enable_never_runs_before_install_succeeded(
    goal: HandlerGoal, results: list[bool]
) -> None:
    machine = _Machine()

    for succeeds in [*results, True, True, True]:
        steps = plan(goal, machine.recorded(), "boot")
        if not steps:
            break
        if isinstance(steps[0], Run) and steps[0].key.operation == ENABLE:
            assert machine.states[steps[0].key.version] in (INSTALLED, ENABLED)
        machine.carry_out(steps[0], goal, succeeds=succeeds or isinstance(steps[0], Fetch))

    left = plan(goal, machine.recorded(), "boot")
    assert all(isinstance(step, Refuse) for step in left)
