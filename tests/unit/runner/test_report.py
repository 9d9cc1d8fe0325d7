"""What the platform is told: every extension ends terminal, and the words are those that others
search for.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.bus.topics import ExtensionGoal, HandlerGoal
from waagent.protocol.handler.settings_files import HandlerStatus
from waagent.workers.extension_runner.handler_journal import Outcome
from waagent.workers.extension_runner.handler_report import (
    LONGEST_S,
    NO_FILE_S,
    NOBODY,
    Extension,
    Situation,
    reports,
)
from waagent.workers.extension_runner.plan import ENABLE, INSTALL, Refuse
from waagent.workers.extension_runner.status_collector import Seen

EXTENSION = ExtensionGoal("", 3, "enabled", "{}")
WALL_NS = 10**18
ENABLED = HandlerStatus("C.S", "1.0", "Ready", 0, "Plugin enabled")


def an_outcome(code: int = 0, operation: str = ENABLE, message: str = "text") -> Outcome:
    return Outcome(
        "id",
        "1.0",
        operation,
        "",
        3,
        "incarnation_1",
        "boot",
        code,
        message,
        1000.0,
        WALL_NS,
        1.0,
        300.0,
    )


def a_file(
    state: str = "success", *, age_s: float = 0, error: str = "", broken_since: float = 0.0
) -> Seen:
    document = {
        "name": "C.S",
        "status": state,
        "code": 0,
        "formattedMessage": {"lang": "en-US", "message": "theirs"},
    }
    return Seen("p", (1,), int(WALL_NS - age_s * 10**9), document, error, broken_since)


def told(
    *, seen: Seen | None = None, outcome: Outcome | None = None, is_alive: bool = False, **more: Any
) -> dict[str, Any]:
    extension = Extension(EXTENSION, outcome, seen, is_alive)
    base = Situation(
        HandlerGoal("C.S", "1.0", "enabled", "incarnation_1", False, (EXTENSION,)),
        "C.S",
        "1.0",
        ENABLED,
        None,
        "",
        False,
        (extension,),
        1010.0,
        WALL_NS,
    )
    (report,) = reports(base._replace(**more))
    status = json.loads(report.status or "{}")
    message = status.get("formattedMessage", {}).get("message", "")
    return {
        "handler": (report.handler_status, report.handler_code, report.handler_message),
        "status": status.get("status"),
        "code": status.get("code"),
        "message": message,
        "sequence": report.sequence,
    }


def test_before_anything_happened_the_extension_waits() -> None:
    said = told(handler=None)

    assert (said["handler"], said["status"]) == (
        ("NotReady", 0, "waiting to start"),
        "transitioning",
    )


def test_while_install_runs_the_handler_is_installing() -> None:
    assert (
        told(handler=None, activity="install running, 30 s", is_installing=True)["handler"][0]
        == "Installing"
    )


def test_a_failure_of_an_earlier_goal_state_is_not_repeated_while_something_runs() -> None:
    failed = HandlerStatus("C.S", "1.0", "NotReady", 1009, "old failure")

    assert told(handler=failed, activity="enable running")["handler"] == (
        "NotReady",
        0,
        "enable running",
    )
    assert told(handler=failed)["handler"] == ("NotReady", 1009, "old failure")


def test_a_failed_install_is_an_error_of_the_extension_too() -> None:
    said = told(outcome=an_outcome(1007, INSTALL, "Non-zero exit code: 3"))

    assert (said["status"], said["code"], said["message"], said["sequence"]) == (
        "error",
        1007,
        "Non-zero exit code: 3",
        3,
    )


def test_a_terminal_file_written_during_the_failed_command_wins_and_an_older_one_does_not() -> None:
    assert told(outcome=an_outcome(1009), seen=a_file("success"))["message"] == "theirs"
    assert told(outcome=an_outcome(1009), seen=a_file("success", age_s=10))["code"] == 1009
    assert told(outcome=an_outcome(1009), seen=a_file("transitioning"))["code"] == 1009


def test_a_broken_file_keeps_the_last_good_status_for_ten_seconds() -> None:
    broken = a_file("transitioning", error="not JSON", broken_since=1000.0)

    assert told(outcome=an_outcome(), seen=broken, now=1009.0)["message"] == "theirs"
    assert told(outcome=an_outcome(), seen=broken, now=1011.0)["code"] == 1012


def test_without_a_file_the_wait_ends() -> None:
    assert told(outcome=an_outcome(), now=1000.0 + NO_FILE_S)["status"] == "transitioning"
    assert told(outcome=an_outcome(), now=1001.0 + NO_FILE_S)["code"] == -1
    assert (
        told(outcome=an_outcome(), now=1001.0 + NO_FILE_S, is_alive=True)["status"]
        == "transitioning"
    )


def test_a_silent_transitioning_file_is_marked_and_ends_after_90_minutes() -> None:
    silent = a_file("transitioning", age_s=16 * 60)

    assert told(outcome=an_outcome(), seen=silent, now=2000.0)["message"] == "theirs" + NOBODY
    assert told(outcome=an_outcome(), seen=silent, now=1001.0 + LONGEST_S)["status"] == "error"
    assert (
        told(outcome=an_outcome(), seen=silent, now=1001.0 + LONGEST_S, is_alive=True)["status"]
        == "transitioning"
    )


def test_a_success_stays_whatever_its_age() -> None:
    assert (
        told(outcome=an_outcome(), seen=a_file("success", age_s=10**6), now=10**7)["status"]
        == "success"
    )


def test_a_refusal_is_an_error_of_both() -> None:
    said = told(refused=Refuse(1008, "not in this version"))

    assert (said["handler"], said["status"], said["code"]) == (
        ("NotReady", 1008, "not in this version"),
        "error",
        1008,
    )


_files = st.none() | st.builds(
    a_file,
    st.sampled_from(["success", "error", "warning", "transitioning"]),
    age_s=st.floats(0, 10**6),
    error=st.sampled_from(["", "bad"]),
)
_outcomes = st.none() | st.builds(
    an_outcome, st.sampled_from([0, -1, 1007, 1009, 1011]), st.sampled_from([ENABLE, INSTALL])
)


@given(_files, _outcomes)
def test_after_90_minutes_without_activity_every_enabled_extension_is_terminal(
    seen: Seen | None, outcome: Outcome | None
) -> None:
    if outcome is None or (outcome.code == 0 and outcome.operation == INSTALL):
        return  # something is still to be done, the planner sees to it

    assert told(seen=seen, outcome=outcome, now=2000.0 + LONGEST_S)["status"] in (
        "success",
        "error",
    )
