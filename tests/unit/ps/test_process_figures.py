"""The figures of `waagent-ps`, of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from waagent.distro import processes
from waagent.supervisor.ps import process_figures
from waagent.supervisor.ps.process_figures import Seen


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that only waits."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def wait_for_letter(pid: int, letter: str) -> None:
    until = time.monotonic() + 30
    while processes.state_letter(pid) != letter:
        assert time.monotonic() < until, processes.state_letter(pid)
        time.sleep(0.01)


def test_our_own_process_has_memory_and_cpu() -> None:
    seen = process_figures.look(os.getpid(), processes.start_ticks(os.getpid()), with_memory=True)

    assert seen.is_alive and seen.letter == "R"
    assert seen.pss_kib is not None and seen.pss_kib > 1000
    assert seen.cpu_s is not None and seen.cpu_s > 0


def test_memory_is_looked_at_only_when_asked() -> None:
    assert process_figures.look(os.getpid()).pss_kib is None


def test_a_stopped_process_is_stopped(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    wait_for_letter(child.pid, "T")

    assert process_figures.look(child.pid).letter == "T"


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    wait_for_letter(child.pid, "Z")

    assert process_figures.look(child.pid, with_memory=True) == Seen(False)


def test_a_process_of_another_start_is_not_the_one_that_was_meant(
    child: subprocess.Popen[bytes],
) -> None:
    ticks = processes.start_ticks(child.pid)
    assert ticks is not None

    assert process_figures.look(child.pid, ticks).is_alive
    assert process_figures.look(child.pid, ticks - 1000) == Seen(False)


def test_a_pid_that_nobody_has_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    child.wait()

    assert process_figures.look(child.pid) == Seen(False)
    assert process_figures.used_by_tree(child.pid) is None


def test_a_tree_counts_its_children() -> None:
    code = "import subprocess, sys; subprocess.run(['sleep', '300'])"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 30
        while (used := process_figures.used_by_tree(parent.pid)) is None or used.processes < 2:
            assert time.monotonic() < until, used
            time.sleep(0.02)
    finally:
        processes.kill_tree(parent.pid)
        parent.wait()

    assert used.processes == 2 and used.memory_kib > 1000
