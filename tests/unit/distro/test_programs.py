"""Programs that we start: their descriptors, signals, endings; nothing of ours leaks into them."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from waagent.distro import programs
from waagent.distro.programs import NULL, PIPE

HERE = {"PATH": "/usr/bin:/bin"}


def read_all(descriptor: int) -> bytes:
    os.set_blocking(descriptor, True)
    found = b""
    while data := os.read(descriptor, 4096):
        found += data
    return found


def test_streams_are_pipes_and_what_was_not_asked_for_is_null() -> None:
    program = programs.start(["sh", "-c", "cat; echo said >&2"], HERE, PIPE, PIPE, PIPE)
    os.write(program.streams[0], b"given")
    program.close_stream(0)

    assert read_all(program.streams[1]) == b"given"
    assert read_all(program.streams[2]) == b"said\n"
    assert program.wait(60) == 0
    program.close()
    assert program.streams == [-1, -1, -1]


def test_it_has_its_environment_alone_no_descriptor_of_ours_and_signals_as_a_shell_has_them() -> (
    None
):
    with open("/dev/null") as ours:
        ours_number = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 77)
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        try:
            code = (
                "import os; print(dict(os.environ), os.listdir('/proc/self/fd'));"
                " print(open('/proc/self/status').read())"
            )
            program = programs.start(
                [sys.executable, "-I", "-S", "-c", code],
                {"A": "b", "LC_ALL": "C"},
                NULL,
                PIPE,
                NULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
            signal.signal(signal.SIGTERM, before)
            os.close(ours_number)
        said = read_all(program.streams[1]).decode()

    assert program.wait(60) == 0
    program.close()
    assert said.startswith("{'A': 'b', 'LC_ALL': 'C'} [")
    assert f"'{ours_number}'" not in said.splitlines()[0]
    facts = dict(line.split(":\t") for line in said.splitlines() if ":\t" in line)
    assert int(facts["SigBlk"], 16) == 0
    assert not int(facts["SigIgn"], 16) & (1 << signal.SIGTERM - 1)


@pytest.mark.parametrize("session", [True, False])
def test_it_leads_a_session_of_its_own_or_stays_in_ours(session: bool) -> None:
    program = programs.start(["cat"], HERE, PIPE, session=session)

    assert (os.getsid(program.pid) == program.pid) is session
    program.close()
    assert program.wait(60) == 0


def test_an_ending_is_a_status_or_a_negative_signal_and_is_told_again() -> None:
    left = programs.start(["sh", "-c", "exit 3"], HERE)
    killed = programs.start(["sleep", "1000"], HERE)
    assert killed.wait(0.05) is None

    killed.kill()

    assert (left.wait(60), left.poll(), left.status) == (3, 3, 3)
    assert killed.wait(60) == -signal.SIGKILL
    killed.kill()  # harmless now


def test_what_cannot_be_executed_is_said_and_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    before = os.listdir("/proc/self/fd")

    for argv in (
        ["/absent/tool"],
        ["waagent-absent-tool"],
        [str(tmp_path / "plain")],
        [str(tmp_path)],
    ):
        with pytest.raises(OSError):
            programs.start(argv, HERE, PIPE, PIPE, PIPE)

    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_wait_ends_at_its_deadline() -> None:
    program = programs.start(["sleep", "1000"], HERE)
    began = time.monotonic()

    assert program.wait(0.2) is None
    assert time.monotonic() - began >= 0.2
    program.kill()
    assert program.wait(60) == -signal.SIGKILL
