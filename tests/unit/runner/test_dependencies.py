"""Who waits for whom (trap 62 and 63 of the specification)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from waagent.workers.extension_runner.dependencies import (
    FAIL,
    GO,
    LONGEST_S,
    WAIT,
    Key,
    Node,
    Verdict,
    judge,
)

A, B, C, D = ("a", ""), ("b", ""), ("c", ""), ("d", "")


def nodes(**states: str) -> dict[Key, Node]:
    """b names a, d names c, a and c are free."""
    return {
        A: Node(0, (), states.get("a", "")),
        B: Node(1, (A,), states.get("b", "")),
        C: Node(0, (), states.get("c", "")),
        D: Node(1, (C,), states.get("d", "")),
    }


def test_a_failure_takes_along_only_those_that_wait_for_it() -> None:
    verdicts = {key[0]: judge(key, nodes(a="error", c="success"), 1) for key in (A, B, C, D)}

    assert {name: verdict.word for name, verdict in verdicts.items()} == {
        "a": GO,
        "b": FAIL,
        "c": GO,
        "d": GO,
    }
    assert "dependency a failed" in verdicts["b"].text


def test_a_warning_is_waited_for_until_90_minutes_are_over() -> None:
    assert judge(B, nodes(a="warning"), LONGEST_S - 1) == Verdict(WAIT, "waiting for a")
    assert judge(B, nodes(a="warning"), LONGEST_S + 1).word == FAIL
    assert judge(B, nodes(a="success"), LONGEST_S + 1).word == GO


def test_a_level_without_names_waits_for_all_lower_levels() -> None:
    graph = {**nodes(a="success"), ("e", ""): Node(1, (), "")}

    assert judge(("e", ""), graph, 1) == Verdict(WAIT, "waiting for c")


def test_itself_a_cycle_and_a_stranger_are_configuration_errors() -> None:
    graph = {
        A: Node(1, (B,), ""),
        B: Node(1, (A,), ""),
        C: Node(1, (C,), ""),
        D: Node(1, (("x", ""),), ""),
    }

    assert all(
        judge(key, graph, 1).word == FAIL and "config errors" in judge(key, graph, 1).text
        for key in graph
    )


def test_a_handler_named_without_an_extension_means_all_of_its_extensions() -> None:
    graph = {
        ("m", "one"): Node(0, (), "success"),
        ("m", "two"): Node(0, (), ""),
        A: Node(1, (("m", ""),), ""),
    }

    assert judge(A, graph, 1) == Verdict(WAIT, "waiting for m.two")


_keys = st.sampled_from([A, B, C, D, ("x", "")])
_nodes = st.dictionaries(
    st.sampled_from([A, B, C, D]),
    st.builds(
        Node,
        st.integers(-1, 3),
        st.lists(_keys, max_size=3).map(tuple),
        st.sampled_from(["", "success", "error", "warning"]),
    ),
    min_size=1,
)


@given(_nodes)
def test_when_all_is_terminal_nobody_waits(graph: dict[Key, Node]) -> None:
    for key, node in graph.items():
        if all(other.state in ("success", "error") for other in graph.values()):
            assert judge(key, graph, 0).word != WAIT
        if not node.needs and node.level <= 0:
            assert judge(key, graph, 0).word == GO
