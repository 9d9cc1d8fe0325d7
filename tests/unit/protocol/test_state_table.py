"""The supervisor's table as it crosses: what is written is what is read, and no answer of a stranger
raises.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol import state_table
from waagent.protocol.state_table import READY, RESIDENT, Table, WorkerRow, ZygoteRow

ROW = WorkerRow(
    name="fabric_client",
    kind=RESIDENT,
    state=READY,
    since=5.5,
    pid=7,
    start_ticks=99,
    restarts=1,
    last_exit="signal 9",
    reason="signal 9",
    beat_at=6.0,
    doing="polls",
    uid=64510,
    caps=("CHOWN",),
    fence="landlock 4",
    facts={"endpoint": "168.63.129.16"},
    waits=("provisioner",),
)
TABLE = Table(
    agent_version="1", pid=1, zygote=ZygoteRow(3, 4), notes=("a note",), workers=(ROW, WorkerRow())
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def test_what_is_written_is_read_as_the_same_table(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "state", os.O_RDWR | os.O_CREAT)
    state_table.StateWriter(descriptor).write(state_table.table_map(TABLE))

    read = state_table.parse_table(state_table.read_state(descriptor))

    os.close(descriptor)
    assert read == TABLE


def test_the_wire_form_is_a_map_of_the_fields() -> None:
    crossed = msgpack.unpackb(msgpack.packb(state_table.table_map(TABLE)))

    assert crossed["workers"][0]["name"] == "fabric_client"
    assert crossed["workers"][0]["facts"] == {"endpoint": "168.63.129.16"}
    assert crossed["zygote"] == {"pid": 3, "start_ticks": 4}


@given(
    st.dictionaries(st.sampled_from(Table._fields), VALUES),
    st.dictionaries(st.sampled_from(WorkerRow._fields), VALUES),
)
def test_no_map_raises_and_what_is_of_another_type_is_left_out(
    said: dict[str, Any], row: dict[str, Any]
) -> None:
    table = state_table.parse_table({"workers": [row, 1], **said})

    assert isinstance(table.pid, (int, type(None)))
    assert all(isinstance(one.name, str) for one in table.workers)
