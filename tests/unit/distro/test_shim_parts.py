"""The shim's plan, records, output and clock, each alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.clock import LAG_S, Deadline
from waagent.distro.operations import launch, records
from waagent.distro.operations.shim import output as shim_output
from waagent.distro.operations.shim import plan as shim_plan

WITHOUT_NUL = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)))


def read_back(data: bytes) -> shim_plan.Plan:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    try:
        return shim_plan.read_plan(reader)
    finally:
        os.close(reader)


@given(command=WITHOUT_NUL, name=st.from_regex(r"[A-Z_]+", fullmatch=True), value=WITHOUT_NUL)
def test_a_plan_arrives_as_it_was_sent(command: str, name: str, value: str) -> None:
    values = [
        ("command", command),
        ("environment", f"{name}={value}"),
        ("command_group", "1|memory,pids|/x|y"),
    ]

    plan = read_back(shim_plan.to_bytes(values))

    assert plan.values["command"] == command
    assert plan.environment == {name: value}
    assert plan.command_groups == [(1, ("memory", "pids"), "/x|y")]


def test_a_plan_cut_off_anywhere_is_no_plan() -> None:
    whole = shim_plan.to_bytes([("command", "a"), ("cwd", "/end")])

    for length in range(len(whole)):
        with pytest.raises(shim_plan.PlanError):
            read_back(whole[:length])


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_records_are_json(value: object) -> None:
    assert json.loads(shim_plan.to_json(value)) == value


def test_text_with_astral_characters_and_stray_bytes_is_json() -> None:
    assert json.loads(shim_plan.to_json('\U0001f600 \udcff\n"')) == '\U0001f600 \udcff\n"'


@given(st.lists(st.integers(0, 3 * 65536), max_size=8))
def test_head_and_tail_are_the_first_and_last_bytes(sizes: list[int]) -> None:
    said = b"".join(bytes([65 + number % 26]) * size for number, size in enumerate(sizes))
    said = (
        bytes((byte + index // 997) % 256 for index, byte in enumerate(said))
        if len(said) < 200000
        else said
    )
    file = os.memfd_create("output")
    reader, writer = os.pipe()
    other_reader, other_writer = os.pipe()
    output = shim_output.Output(file, (reader, other_reader))

    for start in range(0, len(said), 60000):
        os.write(writer, said[start : start + 60000])
        output.turn(0)
    os.close(writer)
    os.close(other_writer)
    while output.held:
        output.turn(0)
    data = os.pread(file, 1 << 20, 0)
    os.close(file)

    head, tail, dropped = shim_output.kept(data, 0)
    assert len(head) + len(tail) + dropped == len(said) == output.totals[0]
    assert said.startswith(head) and said.endswith(tail)
    assert dropped == max(0, len(said) - shim_output.STREAM_BYTES)
    assert shim_output.kept(data, 1) == (b"", b"", 0)


@given(st.binary(max_size=200))
def test_a_foreign_output_file_is_read_without_harm(data: bytes) -> None:
    shim_output.kept(data, 0)
    shim_output.kept(shim_output.MAGIC + data, 1)


def test_the_deadline_passes_at_its_time_when_turns_are_punctual() -> None:
    deadline = Deadline(10, now=100.0)
    now = 100.0

    while not deadline.has_passed(now):
        now += deadline.pause_s(now, 2.0) + 0.01

    assert 110.0 <= now < 110.2


def test_a_machine_that_stood_still_costs_the_command_nothing() -> None:
    deadline = Deadline(10, now=100.0)
    deadline.pause_s(100.0, 2.0)

    assert not deadline.has_passed(100.0 + 2.0 + 60.0)
    assert deadline.at == pytest.approx(170.0)


@given(lateness=st.floats(0, 1000), pause=st.floats(0, 5))
def test_a_deadline_only_ever_moves_later_and_by_the_lag(lateness: float, pause: float) -> None:
    deadline = Deadline(300, now=0.0)
    planned = deadline.pause_s(0.0, pause)

    lag = (planned + lateness) - planned  # as far as the numbers can tell

    deadline.has_passed(planned + lateness)

    assert deadline.at == pytest.approx(300 + (lag if lag > LAG_S else 0), abs=1e-6)


def test_an_early_wake_does_not_count_as_late() -> None:
    deadline = Deadline(10, now=0.0)
    deadline.pause_s(0.0, 2.0)
    deadline.has_passed(0.5)
    deadline.pause_s(0.5, 2.0)
    deadline.has_passed(2.6)

    assert deadline.at == 10


def test_the_scope_is_in_the_handler_s_slice_without_a_version() -> None:
    argv = launch.scope_argv("Microsoft.Azure.Custom-Script", "enable", "3f2a")

    assert argv[:4] == ["systemd-run", "--scope", "--quiet", "--collect"]
    assert "--slice=azure-vmextensions-Microsoft.Azure.Custom_Script.slice" in argv
    assert "--unit=enable_3f2a.scope" in argv
    assert "--property=Delegate=yes" in argv
    assert argv[-1] == "--"


def test_an_operation_without_a_plan_is_absent_and_cannot_be_started(tmp_path: Path) -> None:
    assert records.observe(tmp_path).state == "absent"
    with pytest.raises(launch.OperationError):
        launch.start_shim(tmp_path, python="python3")


def test_a_command_with_a_nul_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    spec = launch.Spec("echo \0", "/", {}, 1, "Contoso", "1.0", "enable")

    with pytest.raises(launch.OperationError):
        launch.plan_operation(tmp_path / "one", spec)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    "fields, text",
    [
        ({"exit_code": 0}, ""),
        ({"exit_code": 7}, "Non-zero exit code: 7"),
        ({"signal": 15}, "Terminated by signal 15 (SIGTERM)"),
        ({"signal": 9, "timed_out": True}, "Timeout(300)"),
        (
            {"signal": 9, "oom_kills": 1},
            "Terminated by signal 9 (SIGKILL), out of memory in /cg/command",
        ),
        (
            {"exit_code": 137, "oom_kills": 2},
            "Non-zero exit code: 137, out of memory in /cg/command",
        ),
    ],
)
def test_the_end_is_told_in_the_contract_s_words(fields: dict, text: str) -> None:
    started = {"groups": [[1, ["cpu"], "/c"], [1, ["memory"], "/cg/command"]]}

    assert (
        records.describe_end(
            records.Observation("finished", {"deadline_s": 300.0}, started, **fields)
        )
        == text
    )
