"""Real cgroups: limits hold, and a kill leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from waagent.distro import processes
from waagent.distro.cgroups import oom
from waagent.distro.cgroups.trees import Leaf, Limits, Tree, bases_of_self

WaitFor = Callable[..., object]
ALLOCATE = "data = bytearray(200 << 20); data[::4096] = b'x' * len(data[::4096])"


def start_in(leaf: Leaf, argv: list[str]) -> subprocess.Popen[bytes]:
    """``argv`` begun inside of the leaf."""
    return subprocess.Popen(
        argv, preexec_fn=leaf.join, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_what_is_in_force_is_named(tree: Tree) -> None:
    assert tree.description.startswith(("v1 ", "v2 "))
    assert "kill" in tree.description or "free" in tree.description


def test_a_fork_bomb_behind_a_pids_limit_is_gone_after_one_kill(
    tree: Tree, wait_for: WaitFor
) -> None:
    leaf = tree.leaf("w-bomb", Limits(pids=64))
    bomb = start_in(
        leaf,
        [
            sys.executable,
            "-c",
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        ],
    )
    wait_for(lambda: len(leaf.pids()) >= 60)
    highest = len(leaf.pids())

    leaf.kill()

    wait_for(lambda: [pid for pid in leaf.pids() if processes.is_alive(pid)] == [])
    bomb.wait()
    assert highest <= 64


def test_eleven_of_eleven_setsid_escapees_are_killed(tree: Tree, wait_for: WaitFor) -> None:
    leaf = tree.leaf("w-escape")
    script = (
        "for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM; setsid sleep 600 & sleep 600' & done;"
        " sleep 600"
    )
    root = start_in(leaf, ["sh", "-c", script])
    wait_for(lambda: len(leaf.pids()) >= 11 + 5)

    leaf.kill()

    wait_for(lambda: [pid for pid in leaf.pids() if processes.is_alive(pid)] == [])
    root.wait()


def test_memory_beyond_the_limit_kills_and_is_counted(tree: Tree) -> None:
    if "memory" not in tree.description:
        pytest.skip(f"no memory controller here ({tree.description})")
    leaf = tree.leaf("w-memory", Limits(memory_mib=64))

    eater = start_in(leaf, [sys.executable, "-c", ALLOCATE])

    assert eater.wait(60) == -signal.SIGKILL
    assert oom.oom_kills(leaf.joined) == 1


def test_tools_of_a_worker_are_not_bound_by_its_memory_limit(tree: Tree) -> None:
    if "memory" not in tree.description:
        pytest.skip(f"no memory controller here ({tree.description})")
    tree.leaf("w-memory", Limits(memory_mib=32))
    tools = tree.leaf("w-memory/tools")

    tool = start_in(tools, [sys.executable, "-c", ALLOCATE])

    assert tool.wait(60) == 0


def test_a_worker_s_kill_takes_its_tools_along_and_no_other_worker(tree: Tree) -> None:
    one, tools, other = tree.leaf("w-one"), tree.leaf("w-one/tools"), tree.leaf("w-two")
    processes_started = [start_in(leaf, ["sleep", "600"]) for leaf in (one, tools, other)]

    one.kill()

    assert [process.wait(60) for process in processes_started[:2]] == [-signal.SIGKILL] * 2
    assert processes_started[2].poll() is None
    assert sorted(other.pids()) == [processes_started[2].pid]
    stop(processes_started[2])


def test_a_new_supervisor_empties_what_is_left_and_spares_its_own_leaf(tree: Tree) -> None:
    sleepers = [
        start_in(tree.leaf(name), ["sleep", "600"]) for name in ("w-one", "w-two", "supervisor")
    ]

    left = tree.empty(deadline_s=60)

    assert [pid for pid in left if processes.is_alive(pid)] == []
    assert [process.poll() is None for process in sleepers] == [False, False, True]
    for process in sleepers:
        stop(process)


def test_a_tree_seen_from_its_own_leaf_is_the_same_tree() -> None:
    tree = Tree(bases_of_self(), f"waagent-test-{os.getpid()}-same")
    if tree.description == "none":
        pytest.skip("no cgroup hierarchy can be written here")
    leaf = tree.leaf("w-inside")
    code = (
        "from waagent.distro.cgroups.trees import Tree, bases_of_self;"
        f" print(Tree(bases_of_self(), {tree.name!r}).existing())"
    )

    seen = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=leaf.join,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "w-inside" in seen.stdout, seen.stderr
    tree.empty(deadline_s=5)
    tree.remove()
    assert tree.existing() == []


def test_frozen_processes_are_killed_where_there_is_no_cgroup_kill(
    tree: Tree, wait_for: WaitFor
) -> None:
    leaf = tree.leaf("w-frozen", Limits(pids=64))
    bomb = start_in(
        leaf,
        [
            sys.executable,
            "-c",
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        ],
    )
    wait_for(lambda: len(leaf.pids()) >= 40)
    older = Leaf([group for group in leaf.groups if group[0] == 1])  # what a machine without v2 has
    if not older.groups:
        pytest.skip("no v1 hierarchy here")

    older.kill()

    wait_for(lambda: [pid for pid in leaf.pids() if processes.is_alive(pid)] == [])
    bomb.wait()
