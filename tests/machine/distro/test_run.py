"""Tools: their end, their output, and nothing left of them at the deadline."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

from waagent.distro import processes
from waagent.distro.cgroups.trees import Tree
from waagent.distro.run import ToolError, ToolNotFound, ToolTimedOut, run

ESCAPE = (
    "for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM; setsid sleep {0} & sleep {0}' & done;"
    " trap '' TERM HUP; sleep {0}"
)


def alive_with(mark: str) -> list[str]:
    """Command lines of living processes that hold ``mark``."""
    found = []
    for process in processes.all_processes():
        try:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if mark in line and process.state not in "ZX" and process.pid != os.getpid():
            found.append(line)
    return found


def a_mark() -> str:
    """A number of seconds that nobody else sleeps."""
    return f"7{uuid.uuid4().int % 10**8}"


def test_output_status_and_input_are_those_of_the_tool() -> None:
    finished = run(
        ["sh", "-c", "cat; echo trouble >&2; exit 3"],
        deadline_s=30,
        stdin=b"x" * 200_000,
        check=False,
    )

    assert (finished.status, len(finished.stdout), finished.stderr, finished.timed_out) == (
        3,
        200_000,
        b"trouble\n",
        False,
    )


def test_a_failure_names_tool_status_and_what_it_said() -> None:
    with pytest.raises(ToolError, match=r"sh ended with status 4: 'no such disk': ") as failed:
        run(["sh", "-c", "echo no such disk >&2; exit 4"], deadline_s=30)

    assert failed.value.finished is not None and failed.value.finished.status == 4


def test_a_missing_tool_is_an_error_of_its_own() -> None:
    with pytest.raises(ToolNotFound):
        run(["mkfs.nonexistent"], deadline_s=5)


def test_a_tool_gets_the_c_locale_no_stdin_and_nothing_that_is_meant_for_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NOTIFY_SOCKET", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG"):
        monkeypatch.setenv(name, "/x")

    finished = run(["sh", "-c", "env; readlink /proc/self/fd/0"], deadline_s=30)

    lines = finished.stdout.decode().splitlines()
    assert "LC_ALL=C" in lines and "/dev/null" in lines
    assert not [line for line in lines if line.startswith(("NOTIFY", "PYTHON", "LD_", "LANG"))]


def test_at_the_deadline_a_tree_of_setsid_escapees_is_gone() -> None:
    mark = a_mark()

    with pytest.raises(ToolTimedOut):
        run(["sh", "-c", ESCAPE.format(mark)], deadline_s=1)

    assert alive_with(mark) == []


def test_in_a_group_the_deadline_ends_all_that_joined_and_spares_who_was_there(tree: Tree) -> None:
    mark, other = a_mark(), a_mark()
    tools = tree.leaf("w-x/tools")
    run(
        ["sh", "-c", f"setsid sleep {other} >/dev/null 2>&1 & exit 0"],
        deadline_s=60,
        place=tools.procs_files,
    )

    finished = run(
        ["sh", "-c", ESCAPE.format(mark)], deadline_s=1, check=False, place=tools.procs_files
    )

    assert finished.timed_out
    assert alive_with(mark) == []
    assert len(alive_with(other)) == 1


def test_endless_output_is_capped_and_ended(tmp_path: Path) -> None:
    finished = run(["yes"], deadline_s=1, check=False, output_limit_bytes=10_000)

    assert finished.timed_out and finished.stdout == b"y\n" * 5_000


def test_a_daemon_that_holds_the_pipe_is_not_waited_for_and_lives() -> None:
    mark = a_mark()

    finished = run(["sh", "-c", f"setsid sleep {mark} & echo up"], deadline_s=60)

    assert finished.stdout == b"up\n" and not finished.timed_out
    left = [
        process.pid
        for process in processes.all_processes()
        if process.pid in processes.children_of(os.getpid())
    ]
    assert len(alive_with(mark)) == 1
    processes.signal_all(left, processes.SIGKILL)


def test_heartbeats_go_on_while_a_tool_runs(tmp_path: Path) -> None:
    beats: list[Path] = []

    def beat() -> None:
        beats.append(tmp_path / f"beat{len(beats)}")
        beats[-1].touch()

    finished = run(
        ["sh", "-c", f"while [ ! -e {tmp_path}/beat1 ]; do sleep 0.1; done"],
        deadline_s=60,
        tick=beat,
    )

    assert not finished.timed_out and len(beats) >= 2


def zombies() -> set[int]:
    """Children of this process that ended and were not waited for; tests before may have left some."""
    children = processes.children_of(os.getpid())
    return {pid for pid in children if processes.state_letter(pid) == "Z"}


def test_a_hundred_runs_leave_no_descriptor_and_no_zombie() -> None:
    run(["true"], deadline_s=60)
    before = len(os.listdir("/proc/self/fd"))
    zombies_before = zombies()

    for _ in range(100):
        run(["sh", "-c", "true & exit 0"], deadline_s=60)

    run(["true"], deadline_s=60)
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(zombies() - zombies_before) <= 1


def test_the_tool_sees_its_own_session_and_no_descriptor_of_ours() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        code = (
            "import os; print(os.getsid(0) == os.getpid(), sorted(int(n) for n in"
            " os.listdir('/proc/self/fd') if int(n) > 2))"
        )
        finished = run([sys.executable, "-c", code], deadline_s=30)
    finally:
        os.close(reader)
        os.close(writer)

    assert finished.stdout.startswith(b"True [3]")  # 3 is the listing itself
