"""What workers tell and what waagent-ps reads are the same names."""

from __future__ import annotations

import ast
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.worker_facts import Facts, parse_facts

ROOT = Path(__file__).resolve().parents[3]


def told() -> set[str]:
    """The names that workers give to `tell`."""
    return {
        keyword.arg or "**"
        for path in (ROOT / "workers").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr == "tell"
        for keyword in node.keywords
    }


def test_workers_tell_nothing_that_is_no_fact() -> None:
    names = told()

    assert "endpoint" in names
    assert names - set(Facts._fields) == set()


@given(
    st.dictionaries(
        st.sampled_from(Facts._fields),
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.none()),
    )
)
def test_whatever_is_told_can_be_read(said: dict[str, object]) -> None:
    facts = parse_facts(said)

    assert isinstance(facts.endpoint, str) and facts.provisioned in (True, False, None)
