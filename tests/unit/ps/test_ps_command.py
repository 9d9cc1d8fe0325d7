"""`waagent-ps` against a supervisor that answers, one that is stopped, one that died, and none at
all.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from waagent.distro import processes
from waagent.distro.paths import Paths
from waagent.protocol import control, state_table
from waagent.supervisor.commands import about

CHECKOUT = Path(about.__file__).resolve().parents[2]


def run(paths: Paths, *words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "waagent.supervisor.ps.main", "--root", str(paths.root), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
        user=user,
    )


def a_table(pid: int, **more: Any) -> dict[str, Any]:
    now = time.monotonic()
    facts = {
        "endpoint": "168.63.129.16",
        "answered_at": now - 2,
        "status_at": now - 41,
        "incarnation": "17",
        "health": "Ready",
    }
    workers = [
        {
            "name": "fabric_client",
            "kind": "resident",
            "state": "READY",
            "pid": pid,
            "start_ticks": processes.start_ticks(pid),
            "restarts": 0,
            "since": now - 100,
            "beat_at": now - 3,
            "doing": "next poll in 4 s",
            "uid": 64510,
            "caps": "",
            "fence": "landlock 3",
            "facts": facts,
        },
        {
            "name": "provisioner",
            "kind": "oneshot",
            "state": "DONE",
            "restarts": 0,
            "result": "azureuser",
            "facts": {"provisioned": True},
        },
    ]
    return {
        "schema": 1,
        "agent_version": "3.0.0",
        "boot_id": processes.boot_id(),
        "pid": pid,
        "start_ticks": processes.start_ticks(pid),
        "started_at": now - 100,
        "beat_at": now - 1,
        "missing": ["cgroups"],
        "notes": [],
        "workers": workers,
        **more,
    }


@pytest.fixture
def paths() -> Iterator[Paths]:
    """A root of its own with a short path (a socket's path has at most 107 bytes) that every user
    may enter.
    """
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="ps", dir="/tmp"))
    root.chmod(0o755)
    found = Paths(root)
    found.run.mkdir(parents=True)
    yield found
    shutil.rmtree(root)


class Supervisor(threading.Thread):
    """A supervisor's socket: answers `list` with ``table`` and refuses the rest; records what it
    was asked.
    """

    def __init__(self, paths: Paths, table: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.table = table
        self.asked: list[dict[str, Any]] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(paths.control_socket))
        paths.control_socket.chmod(0o666)
        self.socket.listen(16)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                message = control.unpack(connection.recv(65536))
                self.asked.append(message)
                if message["type"] == "list":
                    connection.send(control.pack("table", **self.table))
                elif message.get("name") == "fabric_client":
                    connection.send(control.pack("accepted"))
                else:
                    connection.send(control.pack("refused", reason="no such worker"))

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.fixture
def supervisor(paths: Paths) -> Iterator[Supervisor]:
    found = Supervisor(paths, a_table(os.getpid()))
    found.start()
    yield found
    found.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that plays the supervisor in the state file."""
    child = subprocess.Popen(["sleep", "1000"])
    yield child
    child.kill()
    child.wait()


def write_state(paths: Paths, table: dict[str, Any]) -> None:
    descriptor = os.open(paths.state, os.O_RDWR | os.O_CREAT, 0o644)
    state_table.StateWriter(descriptor).write(table)
    os.close(descriptor)


def write_operations(paths: Paths, *rows: dict[str, Any], goal_state: str = "17") -> None:
    view = {
        "schema": 1,
        "goal_state": goal_state,
        "updated_at": time.monotonic(),
        "operations": rows,
    }
    paths.operations_view.write_text(json.dumps(view))


def test_a_supervisor_that_answers_is_listed(paths: Paths, supervisor: Supervisor) -> None:
    finished = run(paths)

    lines = finished.stdout.splitlines()
    assert (finished.returncode, finished.stderr) == (0, "")
    assert lines[0].startswith("waagent 3.0.0 on ") and lines[0].endswith("Ready  goal 17")
    assert lines[1] == "platform 168.63.129.16: answered 2 s ago, status sent 41 s ago"
    assert (
        lines[2] == "NAME                 STATE   PID UPTIME RST BEAT  MEM DOING"
        or "STATE" in lines[2]
    )
    assert lines[3].startswith("fabric_client        READY ") and lines[3].endswith(
        "next poll in 4 s"
    )
    assert all(len(line) <= 80 for line in lines)


def test_json_is_schema_1(paths: Paths, supervisor: Supervisor) -> None:
    document = json.loads(run(paths, "--json").stdout)

    assert (document["schema"], document["source"], document["provisioned"]) == (
        1,
        "supervisor",
        True,
    )
    assert document["platform"]["goal_state"] == "17"
    assert [worker["name"] for worker in document["workers"]] == ["fabric_client", "provisioner"]


def test_wide_says_what_the_machine_lacks(paths: Paths, supervisor: Supervisor) -> None:
    lines = run(paths, "--wide").stdout.splitlines()

    assert lines[-1] == "missing here: cgroups"
    assert "landlock 3" in lines[3] and "64510" in lines[3]


def test_a_worker_in_trouble_gives_status_1(paths: Paths, supervisor: Supervisor) -> None:
    supervisor.table["workers"][0].update(
        state="PARKED", last_exit="exit 1", next_try_at=time.monotonic() + 100
    )

    finished = run(paths)

    assert finished.returncode == 1
    assert "PARKED" in finished.stdout and "exit 1" in finished.stdout


def test_a_stopped_supervisor_is_named_within_a_second(
    paths: Paths, sleeper: subprocess.Popen[bytes]
) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(paths.control_socket))
    listening.listen(1)
    write_state(paths, a_table(sleeper.pid))
    sleeper.send_signal(signal.SIGSTOP)

    finished = run(paths)
    listening.close()

    lines = finished.stdout.splitlines()
    assert finished.returncode == 3
    assert lines[0].startswith(
        f"SUPERVISOR NOT ANSWERING: pid {sleeper.pid} stopped (state T), last beat "
    )
    assert lines[1] == "shown from /run/waagent/state and /proc; operations go on"
    assert lines[2].startswith("remedy: ") and lines[2].endswith(
        "(operations go on, nothing runs twice)"
    )


def test_a_supervisor_that_died_is_named(paths: Paths, sleeper: subprocess.Popen[bytes]) -> None:
    write_state(paths, a_table(sleeper.pid))
    sleeper.kill()
    sleeper.wait()

    finished = run(paths)

    assert finished.returncode == 3
    assert f"SUPERVISOR NOT ANSWERING: pid {sleeper.pid} is gone" in finished.stdout
    assert "fabric_client        GONE " in finished.stdout
    assert json.loads(run(paths, "--json").stdout)["source"] == "state_file"


def test_no_supervisor_at_all(paths: Paths) -> None:
    finished = run(paths)

    assert finished.returncode == 3
    assert finished.stdout.splitlines()[0].startswith("SUPERVISOR NOT ANSWERING: ")
    assert json.loads(run(paths, "--json").stdout)["workers"] == []


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x00" * state_table.SIZE_BYTES, os.urandom(1000)],
    ids=["empty", "zeros", "random"],
)
def test_a_broken_state_file_is_as_good_as_none(paths: Paths, garbage: bytes) -> None:
    paths.state.write_bytes(garbage)
    paths.operations_view.write_bytes(garbage)

    assert (run(paths).returncode, run(paths, "extensions").returncode) == (3, 0)


def test_extensions_fail_with_the_last_operation_of_a_handler(
    paths: Paths, supervisor: Supervisor
) -> None:
    done = {
        "handler": "Contoso.Agent",
        "version": "1.0",
        "operation": "enable",
        "state": "done",
        "exit_code": 0,
        "sequence": 0,
    }
    write_operations(
        paths, done, {**done, "operation": "install", "state": "failed", "exit_code": 1}
    )
    well = run(paths, "extensions")
    write_operations(paths, {**done, "state": "failed", "exit_code": 7, "message": "stderr: no"})
    broken = run(paths, "extensions")

    assert (well.returncode, broken.returncode) == (0, 1)
    assert "  stderr: no" in broken.stdout.splitlines()
    assert run(paths).stdout.splitlines()[-1] == "! 1 extension failed, see: waagent-ps extensions"


def test_a_restart_is_asked_for_by_name(paths: Paths, supervisor: Supervisor) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")

    assert run(paths, "restart", "fabric_client").returncode == 0
    assert supervisor.asked[-1]["name"] == "fabric_client"
    refused = run(paths, "restart", "nobody")
    assert (refused.returncode, refused.stderr) == (
        2,
        "waagent-ps: nobody is not restarted: no such worker: see waagent-ps\n",
    )


def test_an_ordinary_user_may_look_and_not_touch(paths: Paths, supervisor: Supervisor) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    if about.first_obstacle([CHECKOUT / "waagent", Path(sys.executable).resolve()]) is not None:
        pytest.skip("other users cannot read this checkout or this Python")

    listing, touching = run(paths, user=65534), run(paths, "restart", "fabric_client", user=65534)

    assert (listing.returncode, touching.returncode) == (0, 4)
    assert "READY" in listing.stdout
    assert (
        touching.stderr
        == "waagent-ps: restart needs root; try: sudo waagent-ps restart fabric_client\n"
    )


def test_usage_is_status_2(paths: Paths) -> None:
    finished = run(paths, "--bogus")

    assert (finished.returncode, finished.stdout) == (2, "")
    assert (
        finished.stderr
        == "waagent-ps: unknown option '--bogus': command line: try waagent-ps --help\n"
    )


def test_wait_ends_when_the_vm_is_provisioned(paths: Paths, supervisor: Supervisor) -> None:
    assert run(paths, "--wait", "provisioned").returncode == 0
    supervisor.table["workers"][1].update(state="INIT", facts={})
    assert run(paths, "--wait", "provisioned", "--timeout", "0.2").returncode == 6
    supervisor.table["workers"][1].update(
        state="DONE", result="no DVD", facts={"provisioned": False}
    )
    failed = run(paths, "--wait", "provisioned")
    assert (failed.returncode, failed.stderr) == (
        1,
        "waagent-ps: not provisioned: no DVD: see /var/log/waagent.log\n",
    )


def test_wait_ends_when_no_extension_is_under_way(paths: Paths, supervisor: Supervisor) -> None:
    supervisor.table["workers"].append(
        {"name": "extension_runner", "kind": "ondemand", "state": "READY", "restarts": 0}
    )
    row = {
        "handler": "Contoso.Agent",
        "version": "1.0",
        "operation": "enable",
        "state": "running",
        "sequence": 0,
    }
    write_operations(paths, row)
    assert run(paths, "--wait", "extensions", "--timeout", "0.2").returncode == 6
    write_operations(paths, {**row, "state": "done"})
    assert run(paths, "--wait", "extensions").returncode == 0
    write_operations(paths, {**row, "state": "failed"})
    assert run(paths, "--wait", "extensions").returncode == 1


def test_wait_without_a_supervisor_is_status_3(paths: Paths) -> None:
    assert run(paths, "--wait", "provisioned", "--timeout", "0").returncode == 3


def test_watch_without_a_terminal_prints_a_line_for_each_change(
    paths: Paths, supervisor: Supervisor
) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "waagent.supervisor.ps.main", "--root", str(paths.root), "--watch"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    assert watching.stdout is not None
    first = [watching.stdout.readline() for _ in range(2)]
    supervisor.table["workers"][0].update(state="HUNG", reason="no heartbeat for 35 s")
    changed = watching.stdout.readline()
    watching.kill()
    watching.wait()

    assert [line[9:].split(",")[0] for line in first] == ["fabric_client READY", "provisioner DONE"]
    assert changed[2::3][0] == ":" and changed[9:] == "fabric_client HUNG, no heartbeat for 35 s\n"


def test_watch_on_a_terminal_folds_and_quits(paths: Paths, supervisor: Supervisor) -> None:
    import pty
    import select

    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(CHECKOUT)
        os.environ["TERM"] = "xterm"
        os.execv(
            sys.executable,
            [
                sys.executable,
                "-m",
                "waagent.supervisor.ps.main",
                "--root",
                str(paths.root),
                "--watch",
            ],
        )
    seen = b""
    deadline = time.monotonic() + 60
    while b"q quit" not in seen and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 65536)
    os.write(terminal, b"q")
    status = os.waitpid(pid, 0)[1]
    os.close(terminal)

    assert b"DONE: provisioner" in seen and b"fabric_client" in seen
    assert os.WEXITSTATUS(status) == 0


def test_a_listing_needs_few_modules(paths: Paths, supervisor: Supervisor) -> None:
    heavy = ("argparse", "zmq", "termios", "lxml", "cryptography", "requests")
    code = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r});"
        f" sys.path.append({str(Path(msgpack.__file__).parents[1])!r})\nsys.argv[1:] = ['--root',"
        f" {str(paths.root)!r}]\nfrom waagent.supervisor.ps import main; status = main.main();"
        f" print(status, sorted(set({heavy}) & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60
    )

    assert "fabric_client" in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr == ""
