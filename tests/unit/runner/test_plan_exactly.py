"""The plan to the letter: keys, settings, texts and codes of each step, and what names a folder."""

from __future__ import annotations

import pytest

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
    STATES,
    UNINSTALL,
    UPDATE,
    Fetch,
    Forget,
    OperationKey,
    Recorded,
    Refuse,
    Remove,
    Run,
    bad_names,
    installed_as,
    plan,
    refuse_disabled,
)

NAME = "Contoso.Sample"


def an_extension(
    name: str = "", sequence: int = 0, state: str = "enabled", level: int = 0
) -> ExtensionGoal:
    return ExtensionGoal(name, sequence, state, "{}", dependency_level=level)


def a_goal(*extensions: ExtensionGoal, **changes: object) -> HandlerGoal:
    goal = HandlerGoal(NAME, "1.0.0", "enabled", "incarnation_1", False, extensions)
    return goal._replace(**changes)


def recorded(states: dict[str, str], *extensions: str, **more: dict[str, object]) -> Recorded:
    return Recorded(
        states, frozenset(extensions), more.get("unpacked", {}), more.get("outcomes", {})
    )


def a_run(
    operation: str, settings: ExtensionGoal | None, extension: str = "", *, version: str = "1.0.0"
) -> Run:
    sequence = settings.sequence if settings is not None else 0
    key = OperationKey(NAME, version, operation, extension, sequence, "incarnation_1", "boot")
    return Run(key, settings, operation not in (DISABLE, UNINSTALL))


def test_the_words_are_those_of_the_files_that_others_read() -> None:
    assert STATES == ("NotInstalled", "Installed", "Enabled", "FailedUpgrade")
    assert (NOT_INSTALLED, INSTALLED, ENABLED, FAILED_UPGRADE) == STATES
    assert (INSTALL, ENABLE, DISABLE) == ("install", "enable", "disable")


def test_an_operations_folder_is_named_by_all_that_makes_it_the_same() -> None:
    key = OperationKey(NAME, "1.0", ENABLE, "one", 3, "incarnation_1", "boot")
    others = [
        key._replace(handler="Contoso.Other"),
        key._replace(version="1.1"),
        key._replace(operation=DISABLE),
        key._replace(extension="two"),
        key._replace(sequence=4),
        key._replace(goal_state_id="incarnation_2"),
        key._replace(boot_id="next"),
        # the same letters at other places
        key._replace(version="1.0enable", operation=""),
    ]

    assert key.id == "4a3286dfe8a9519f40a2746edf33c3e9"
    assert key._replace(handler=NAME.upper()).id == key.id
    assert len({key.id, *(other.id for other in others)}) == 1 + len(others)
    assert len(key._replace(goal_state_id="\udc80").id) == 32  # what XML cannot hold names one too


def test_a_new_handler_is_fetched_installed_and_enabled_with_its_settings() -> None:
    settings = an_extension(sequence=5)

    steps = plan(a_goal(settings), recorded({}), "boot")

    assert steps == (Fetch("1.0.0"), a_run(INSTALL, settings), a_run(ENABLE, settings))


def test_a_new_handler_without_settings_is_fetched_installed_and_enabled() -> None:
    steps = plan(a_goal(), recorded({}), "boot")

    assert steps == (Fetch("1.0.0"), a_run(INSTALL, None), a_run(ENABLE, None))


def test_a_handler_of_several_extensions_that_has_none_is_enabled_as_itself() -> None:
    steps = plan(a_goal(multi_config=True), recorded({"1.0.0": INSTALLED}), "boot")

    assert steps == (a_run(ENABLE, None),)


def test_a_package_that_is_unpacked_for_this_goal_state_is_not_fetched_again() -> None:
    settings, wanted = an_extension(), a_goal(an_extension())
    unpacked = recorded({"1.0.0": NOT_INSTALLED}, unpacked={"1.0.0": "incarnation_1"})
    older = recorded({"1.0.0": NOT_INSTALLED}, unpacked={"1.0.0": "incarnation_0"})

    assert plan(wanted, unpacked, "boot") == (a_run(INSTALL, settings), a_run(ENABLE, settings))
    assert plan(wanted, older, "boot")[0] == Fetch("1.0.0")


def test_an_install_that_succeeded_is_followed_by_enable_whatever_the_state_says() -> None:
    settings = an_extension()
    install = a_run(INSTALL, settings)
    known = recorded({"1.0.0": NOT_INSTALLED}, outcomes={install.key.id: True})

    assert plan(a_goal(settings), known, "boot") == (a_run(ENABLE, settings),)


def test_an_enable_that_failed_is_not_tried_again_in_its_goal_state() -> None:
    settings = an_extension()
    known = recorded({"1.0.0": INSTALLED}, outcomes={a_run(ENABLE, settings).key.id: False})

    assert plan(a_goal(settings), known, "boot") == ()


def test_several_extensions_are_enabled_in_the_order_of_their_levels() -> None:
    late, early = an_extension("a", 1, level=2), an_extension("b", 2, level=1)

    steps = plan(a_goal(late, early, multi_config=True), recorded({"1.0.0": NOT_INSTALLED}), "boot")

    assert steps == (
        Fetch("1.0.0"),
        a_run(INSTALL, early, "b"),
        a_run(ENABLE, early, "b"),
        a_run(ENABLE, late, "a"),
    )


def test_one_set_of_settings_that_says_disabled_is_enabled_as_its_handler_is() -> None:
    settings = an_extension("named", state="disabled")

    steps = plan(a_goal(settings), recorded({"1.0.0": ENABLED}), "boot")

    assert steps == (a_run(ENABLE, settings),)


def test_a_handler_all_of_whose_extensions_go_is_not_installed_for_that() -> None:
    goal = a_goal(an_extension("one", state="disabled"), multi_config=True)

    assert plan(goal, recorded({}), "boot") == ()
    assert plan(goal, recorded({"1.0.0": ENABLED}), "boot") == ()


def test_an_extension_that_goes_is_disabled_then_forgotten() -> None:
    settings = an_extension("one", state="disabled")
    goal = a_goal(settings, multi_config=True)

    steps = plan(goal, recorded({"1.0.0": ENABLED}, "one"), "boot")

    assert steps == (a_run(DISABLE, settings, "one"), Forget("1.0.0", "one"))


def test_an_extension_whose_disable_succeeded_before_is_only_forgotten() -> None:
    goal = a_goal(an_extension("one", state="disabled"), multi_config=True)
    known = recorded({"1.0.0": ENABLED})._replace(disabled=frozenset({"one"}))

    assert plan(goal, known, "boot") == (Forget("1.0.0", "one"),)


def test_extensions_that_all_go_go_from_the_version_that_is_there() -> None:
    settings = an_extension("one", state="disabled")
    goal = a_goal(settings, multi_config=True, version="2.0.0")

    steps = plan(goal, recorded({"1.0.0": ENABLED}, "one"), "boot")

    assert steps == (a_run(DISABLE, settings, "one"), Forget("1.0.0", "one"))


def test_an_update_takes_the_first_settings_and_disables_unknown_extensions_with_sequence_0() -> (
    None
):
    one, two = an_extension("one", 4), an_extension("two", 5)
    goal = a_goal(one, two, multi_config=True, version="2.0.0")
    gone = ExtensionGoal("three", 0, "disabled", "null")

    steps = plan(goal, recorded({"1.0.0": ENABLED}, "one", "three"), "boot")

    update = a_run(UPDATE, one, version="2.0.0")
    assert steps[:5] == (
        Fetch("2.0.0"),
        a_run(DISABLE, one, "one"),
        a_run(DISABLE, gone, "three"),
        update._replace(
            key=steps[3].key,  # type: ignore[union-attr]
            update=("1.0.0", "2.0.0"),
            extensions=("one", "two"),
        ),
        a_run(UNINSTALL, one)._replace(key=steps[4].key),  # type: ignore[union-attr]
    )


def test_an_update_whose_disable_failed_stops_with_nothing_to_do() -> None:
    goal = a_goal(an_extension(), version="2.0.0")
    disable = plan(goal, recorded({"1.0.0": ENABLED}), "boot")[1]
    assert isinstance(disable, Run)

    failed = recorded({"1.0.0": ENABLED}, outcomes={disable.key.id: False})

    assert plan(goal, failed, "boot") == ()


def test_a_removal_of_several_extensions_disables_them_and_uninstalls_with_the_first() -> None:
    one, two = an_extension("one", 4), an_extension("two", 5)
    goal = a_goal(one, two, multi_config=True, state="uninstall")

    steps = plan(goal, recorded({"1.0.0": ENABLED}, "one", "two"), "boot")

    runs = [step for step in steps if isinstance(step, Run)]
    assert [(run.key.operation, run.settings) for run in runs] == [
        (DISABLE, one),
        (DISABLE, two),
        (UNINSTALL, one),
    ]


def test_a_disabled_handler_is_disabled_once_in_the_version_that_is_enabled() -> None:
    settings, goal = an_extension(sequence=2), a_goal(an_extension(sequence=2), state="disabled")
    disable = a_run(DISABLE, settings)
    older = a_run(DISABLE, settings, version="0.10")

    assert plan(goal, recorded({"1.0.0": ENABLED}), "boot") == (disable,)
    assert plan(goal, recorded({"1.0.0": ENABLED, "0.9": ENABLED}), "boot") == (disable,)
    assert plan(goal, recorded({"1.0.0": ENABLED, "2.0": ENABLED}), "boot") == (disable,)
    assert plan(goal, recorded({"0.9": ENABLED, "0.10": ENABLED}), "boot") == (older,)
    assert plan(goal, recorded({"0.10": ENABLED, "1.0.0": INSTALLED}), "boot") == (older,)
    for succeeded in (True, False):
        done = recorded({"1.0.0": ENABLED}, outcomes={disable.key.id: succeeded})
        assert plan(goal, done, "boot") == ()
    assert plan(goal._replace(extensions=()), recorded({"1.0.0": ENABLED}), "boot") == (
        a_run(DISABLE, None),
    )
    for state in (NOT_INSTALLED, INSTALLED, FAILED_UPGRADE):
        assert plan(goal, recorded({"1.0.0": state}), "boot") == ()
    assert plan(goal, recorded({}), "boot") == ()


def test_a_disabled_handler_of_several_extensions_is_disabled_with_the_first() -> None:
    one, two = an_extension("one", 1), an_extension("two", 2)
    goal = a_goal(one, two, multi_config=True, state="disabled")

    steps = plan(goal, recorded({"1.0.0": ENABLED}), "boot")

    assert steps == (a_run(DISABLE, one, "one"),)


def test_a_removal_runs_disable_and_uninstall_of_what_is_installed_and_removes_all() -> None:
    settings = an_extension("", 3)
    known = recorded({"0.1": NOT_INSTALLED, "1.0": ENABLED, "2.0": FAILED_UPGRADE})

    assert plan(a_goal(settings, state="uninstall"), known, "boot") == (
        a_run(DISABLE, settings, version="1.0"),
        a_run(UNINSTALL, settings, version="1.0"),
        Remove("0.1"),
        Remove("1.0"),
        Remove("2.0"),
    )


@pytest.mark.parametrize("state", [INSTALLED, ENABLED])
def test_other_versions_go_once_the_wanted_one_is_enabled(state: str) -> None:
    known = recorded({"0.10": state, "0.9": INSTALLED, "0.11": NOT_INSTALLED, "1.0": ENABLED})
    enable = a_run(ENABLE, None, version="1.0")
    assert plan(a_goal(), known, "boot") == (enable,)

    failed = known._replace(outcomes={enable.key.id: False})
    assert plan(a_goal(), failed, "boot") == ()

    done = known._replace(outcomes={enable.key.id: True})
    assert plan(a_goal(), done, "boot") == (Remove("0.9"), Remove("0.10"), Remove("0.11"))


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (a_goal(error="no JSON"), "Ran into config errors: no JSON"),
        (
            a_goal(an_extension(), an_extension()),
            "Ran into config errors: 2 settings for Contoso.Sample, which takes one",
        ),
        (
            a_goal(an_extension(sequence=-1)),
            "Ran into config errors: a sequence number below 0",
        ),
        (
            a_goal(state="p" * 50),
            f"Ran into config errors: unknown requested state '{'p' * 40}' of Contoso.Sample",
        ),
    ],
)
def test_a_goal_that_is_wrong_is_refused_with_its_reason(goal: HandlerGoal, message: str) -> None:
    assert plan(goal, recorded({}), "boot") == (Refuse(handler_errors.UNKNOWN, message),)


def test_names_are_looked_at_where_they_become_files() -> None:
    one, two = an_extension("one"), an_extension("../two")

    assert bad_names(a_goal(one, name="../x")) != ""
    assert bad_names(a_goal(one, version="1.x")) != ""
    assert bad_names(a_goal(one, two, multi_config=True)) != ""
    assert bad_names(a_goal(two)) == ""  # it names no file: the handler takes one set of settings
    assert bad_names(a_goal(one, an_extension("two"), multi_config=True)) == ""
    assert bad_names(a_goal(an_extension(sequence=0))) == ""


def test_the_first_spelling_of_a_name_stays() -> None:
    (step,) = plan(a_goal(), recorded({"1.0.0": ENABLED}), "boot", spelling="contoso.SAMPLE")

    assert isinstance(step, Run) and step.key.handler == "contoso.SAMPLE"


@pytest.mark.parametrize(
    ("states", "spelled"),
    [
        ({}, "1.0.0"),
        ({"2.0": ENABLED}, "1.0.0"),
        ({"1.0": ENABLED, "2.0": ENABLED}, "1.0"),
        ({"2.0": ENABLED, "1.0": ENABLED}, "1.0"),
        ({"1.0": ENABLED, "1.0.0": ENABLED}, "1.0.0"),
        ({"1.0.0": ENABLED, "1.0": ENABLED}, "1.0.0"),
    ],
)
def test_a_version_is_spelled_as_its_folder(states: dict[str, str], spelled: str) -> None:
    assert installed_as("1.0.0", states) == spelled


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("enabled", handler_errors.ENABLE_FAILED),
        ("disabled", handler_errors.DISABLE_FAILED),
        ("uninstall", handler_errors.DISABLE_FAILED),
    ],
)
def test_what_is_switched_off_says_which_option_switches_it_on(state: str, code: int) -> None:
    assert refuse_disabled(a_goal(state=state), "/etc/waagent.conf") == Refuse(
        code,
        "Extension will not be processed since extension processing is disabled. To enable"
        " extension processing, set Extensions.Enabled=y in '/etc/waagent.conf'",
    )
