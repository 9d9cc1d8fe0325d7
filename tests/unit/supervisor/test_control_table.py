"""The table of the control channel: who may say what, and what is made of it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.control import ControlError
from waagent.supervisor import control_table
from waagent.supervisor import events as e
from waagent.supervisor.control_table import GREETED, MESSAGES, NEW, Greeting, Request, Sender
from waagent.supervisor.supervisor import Supervisor

USER, ROOT = Sender(5, 1000, 1000), Sender(6, 0, 0)
WORKER, ROOT_WORKER = Sender(7, 64510, 64510, "fabric_client"), Sender(8, 0, 0, "provisioner")
WORDS = {"ready", "heartbeat", "busy", "done", "want", "unwant"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def allowed(sender: Sender, phase: str = NEW) -> set[str]:
    return {kind for kind in MESSAGES if control_table.refusal(kind, sender, phase) is None}


def test_each_sender_has_its_messages() -> None:
    assert allowed(USER) == {"list"}
    assert allowed(ROOT) == {"list", "restart", "stop", "reload"}
    assert allowed(WORKER) == {"list", "hello"}
    assert allowed(WORKER, GREETED) == {"list"} | WORDS


def test_a_worker_with_uid_0_has_the_messages_of_a_worker() -> None:
    assert allowed(ROOT_WORKER) == allowed(WORKER)
    assert allowed(ROOT_WORKER, GREETED) == allowed(WORKER, GREETED)
    reason = control_table.refusal("stop", ROOT_WORKER, GREETED)
    assert reason == "a worker may not do this, whatever its uid"


def test_what_is_not_in_the_table_is_refused_with_a_short_name() -> None:
    assert control_table.refusal("sing" * 50, ROOT, NEW) == f"unknown message {('sing' * 10)!r}"


@pytest.mark.parametrize("kind", MESSAGES)
def test_each_method_is_one_of_the_supervisor_for_what_the_parser_makes(kind: str) -> None:
    message = MESSAGES[kind]

    method = getattr(Supervisor, message.method)

    made = inspect.signature(message.parse).return_annotation
    taken = list(inspect.signature(method).parameters.values())[-1].annotation
    assert made == taken or (taken == "Word" and made.startswith("e."))


@pytest.mark.parametrize(
    ("kind", "said", "made"),
    [
        ("hello", {"build": "b"}, Greeting("b")),
        ("ready", {}, e.Ready("fabric_client", 7)),
        (
            "heartbeat",
            {"doing": "polls", "progress": 2, "facts": {"a": 1, "b": [1], "c": "x" * 500}},
            e.Beat("fabric_client", 7, "polls", 2, {"a": 1, "c": "x" * 400}),
        ),
        ("heartbeat", {"doing": "", "progress": 0}, e.Beat("fabric_client", 7, "", 0, {})),
        (
            "heartbeat",
            {"doing": "", "progress": 0, "facts": {b"a": 1, "b": 2}},
            e.Beat("fabric_client", 7, "", 0, {"b": 2}),
        ),
        (
            "busy",
            {"seconds": 1.5, "reason": "mkfs", "progress": 1},
            e.Busy("fabric_client", 7, 1.5, "mkfs", 1),
        ),
        ("done", {"summary": "s"}, e.Done("fabric_client", 7, "s")),
        (
            "want",
            {"name": "probe", "numbers": [80, 443]},
            e.Wanted("fabric_client", "probe", (80, 443)),
        ),
        ("want", {"name": "probe", "numbers": None}, e.Wanted("fabric_client", "probe", ())),
        ("unwant", {"name": "probe"}, e.Unwanted("fabric_client", "probe")),
        ("list", {"name": 7}, Request()),
        ("restart", {"name": "client"}, Request("client")),
        ("stop", {}, Request()),
        ("reload", {}, Request()),
    ],
)
def test_a_message_becomes_its_value(kind: str, said: dict[str, Any], made: object) -> None:
    assert MESSAGES[kind].parse(WORKER, said) == made


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("hello", {}),
        ("heartbeat", {"doing": "x"}),
        ("heartbeat", {"doing": 1, "progress": 1}),
        ("heartbeat", {"doing": "x", "progress": True}),
        ("heartbeat", {"doing": "x", "progress": 1, "facts": [1]}),
        ("heartbeat", {"doing": "x", "progress": 1, "facts": dict.fromkeys("abcdefghijklmnopq")}),
        ("busy", {"seconds": float("nan"), "reason": "", "progress": 1}),
        ("busy", {"seconds": float("inf"), "reason": "", "progress": 1}),
        ("busy", {"seconds": "9", "reason": "", "progress": 1}),
        ("busy", {"seconds": True, "reason": "", "progress": 1}),
        ("want", {"name": "probe", "numbers": ["80"]}),
        ("want", {"name": "probe", "numbers": {"80": 1}}),
        ("want", {"name": None}),
        ("restart", {"name": None}),
    ],
)
def test_a_field_that_is_missing_or_of_another_type_is_refused(
    kind: str, said: dict[str, Any]
) -> None:
    with pytest.raises(ControlError):
        MESSAGES[kind].parse(WORKER, said)


@given(
    st.sampled_from(sorted(MESSAGES)),
    st.dictionaries(
        st.sampled_from(
            ("build", "doing", "progress", "facts", "seconds", "reason", "summary", "name")
        )
        | st.just("numbers"),
        VALUES,
    ),
)
def test_no_message_raises_anything_else(kind: str, said: dict[str, Any]) -> None:
    try:
        value = MESSAGES[kind].parse(WORKER, said)
    except ControlError:
        return
    hash(value) if not isinstance(value, e.Beat) else None  # frozen all the way down
