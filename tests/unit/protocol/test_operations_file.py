"""What extension_runner writes and `waagent-ps extensions` reads."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol import operations_file
from waagent.protocol.operations_file import LIMIT_BYTES, Operation, OperationsFile

A_ROW = Operation(
    name="0" * 32,
    handler="Contoso.Hello",
    version="1.0",
    operation="enable",
    sequence=3,
    state=operations_file.KILLED,
    elapsed_s=1.5,
    limit_s=300.0,
    signal=9,
    reported="error",
    message="killed",
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(OperationsFile._fields + Operation._fields), inner)
    ),
    max_leaves=12,
)


def test_what_is_written_is_read() -> None:
    file = OperationsFile(goal_state="17", updated_at=12.5, operations=(A_ROW, Operation()))

    assert operations_file.parse(operations_file.packed(file)) == file


def test_the_oldest_are_left_out_when_they_do_not_fit() -> None:
    rows = tuple(A_ROW._replace(sequence=number, message="x" * 1000) for number in range(500))

    data = operations_file.packed(OperationsFile(operations=rows))

    kept = operations_file.parse(data).operations
    assert len(data) <= LIMIT_BYTES
    assert kept == rows[: len(kept)] and len(kept) > 100


@given(JSON)
def test_whatever_stands_in_it_is_a_file(said: object) -> None:
    file = operations_file.parse(json.dumps(said).encode())

    assert all(isinstance(row.state, str) for row in file.operations)


@given(st.binary(max_size=64))
def test_bytes_that_are_no_json_are_an_empty_file(data: bytes) -> None:
    operations_file.parse(data)


def test_a_field_of_another_type_is_what_it_is_by_default() -> None:
    row = operations_file.parse_map(
        {"operations": [{"handler": 3, "exit_code": True, "elapsed_s": "1", "message": None}, 7]}
    ).operations

    assert row == (Operation(),)
