"""The supervisor's own process: what it holds, who may speak to it, that there is one, and what a
full /run changes.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from a_supervisor import HERE, HOUSE, a_supervisor

from waagent.distro.paths import Paths
from waagent.protocol import control

ROWS = (
    "[(a_row('environment_monitor', serves=True), {}), (a_row('client', privilege=UNPRIVILEGED,"
    " account=WAAGENT), {}), (a_row('runner', serves=True), {})]"
)
NAMES = ("environment_monitor", "client", "runner")


def held(pid: int) -> dict[str, str]:
    return {
        number: os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")
    }


def test_it_is_one_thread_with_little_loaded_and_nothing_open_on_a_disk_but_the_log(
    root: Path,
) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)

        maps = Path(f"/proc/{supervisor.pid}/maps").read_text()
        files = {link for link in held(supervisor.pid).values() if link.startswith(str(root))}

        assert len(os.listdir(f"/proc/{supervisor.pid}/task")) == 1
        assert not any(word in maps for word in ("zmq", "lxml", "psutil", "libssl"))
        assert {name for name in files if not name.startswith(str(root / "run"))} == {
            str(supervisor.paths.log)
        }


def test_a_worker_holds_nothing_of_the_supervisors(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        rows = supervisor.wait_ready(*NAMES)
        ours = set(held(supervisor.pid).values())
        zygote = set(held(supervisor.ask()["zygote"]["pid"]).values())
        shared = {name: ours & set(held(rows[name]["pid"]).values()) for name in NAMES}

        allowed = {"/dev/null", str(supervisor.paths.log), str(supervisor.paths.state)}
        for name in NAMES:
            extra = {link for link in shared[name] - allowed if "stack-" not in link}
            # its listening socket
            assert len(extra) == (0 if name == "client" else 1), f"{name} shares {extra}"
            state = next(
                number
                for number, link in held(rows[name]["pid"]).items()
                if link == str(supervisor.paths.state)
            )
            flags = Path(f"/proc/{rows[name]['pid']}/fdinfo/{state}").read_text()
            assert int(flags.split("flags:")[1].split()[0], 8) & os.O_ACCMODE == os.O_RDONLY
        assert ours & zygote <= {"/dev/null", str(supervisor.paths.log)}


def test_sockets_have_their_owner_and_mode(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        bus, line = (
            os.stat(supervisor.paths.bus / "runner"),
            os.stat(supervisor.paths.control_socket),
        )

        assert (stat.S_IMODE(bus.st_mode), bus.st_uid, bus.st_gid) == (0o660, 0, 64512)
        assert stat.S_IMODE(line.st_mode) == 0o666
        assert not (supervisor.paths.bus / "client").exists()


def test_a_second_one_names_pid_and_lock(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)

        argv = [
            sys.executable,
            str(HERE / "run_supervisor.py"),
            str(root),
            ROWS,
            "",
            supervisor.tree,
        ]
        environment = {**os.environ, "PYTHONPATH": f"{HOUSE}:{HERE}"}
        second = subprocess.run(argv, cwd=HOUSE, env=environment, capture_output=True, timeout=20)

        assert second.returncode == 1
        assert (
            f"pid {supervisor.pid} holds {supervisor.paths.locks / 'supervisor'}"
            in second.stderr.decode()
        )
        supervisor.wait_ready(*NAMES)


def test_an_impostor_on_the_control_socket_changes_nothing(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        before = supervisor.wait_ready(*NAMES)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.settimeout(30)
            line.connect(str(supervisor.paths.control_socket))
            answers = []
            for message in (
                control.pack("hello", build=supervisor.ask()["build"]), control.pack("ready"), control.pack("done", summary="mine"),
                control.pack("heartbeat", doing="I am client", progress=1), control.pack("want", name="runner", numbers=[]),
                control.pack("sing"),
            ):  # fmt: skip
                line.send(message)
                answers.append(control.unpack(line.recv(4096)))

        after = supervisor.rows_now()
        assert [answer["type"] for answer in answers] == ["refused"] * 6
        assert {name: row["pid"] for name, row in after.items()} == {
            name: row["pid"] for name, row in before.items()
        }
        assert after["client"]["doing"] != "I am client"
        assert "6 control messages or connections refused" in supervisor.ask()["notes"]


def test_strangers_are_few_and_have_a_second(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        before = len(held(supervisor.pid))
        lines = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(60)]
        for line in lines:
            line.connect(str(supervisor.paths.control_socket))
        time.sleep(0.5)
        assert len(held(supervisor.pid)) - before <= control.FOREIGN_CONNECTIONS

        # the one of this question
        supervisor.wait(lambda rows: len(held(supervisor.pid)) - before <= 1)

        for line in lines:
            line.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.connect(str(supervisor.paths.control_socket))
            line.send(b"\x80" * 5000)
            assert line.recv(10) == b""
        assert all(row["state"] == "READY" for row in supervisor.rows_now().values())


def test_no_descriptor_left_is_survived(root: Path) -> None:
    with a_supervisor(root, ROWS, before=("prlimit", "--nofile=44:44")) as supervisor:
        supervisor.wait_ready(*NAMES)
        lines = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(40)]
        for line in lines:
            line.connect(str(supervisor.paths.control_socket))
        time.sleep(0.3)
        for line in lines:
            line.close()

        rows = supervisor.wait_ready(*NAMES)
        assert all(row["restarts"] == 0 for row in rows.values())


def test_an_ordinary_user_lists_and_changes_nothing(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        code = (
            "import socket, msgpack, os, sys; os.setresuid(*[int(sys.argv[2])] * 3)\nfor kind in"
            " ('list', 'restart', 'stop', 'reload'):\n    line = socket.socket(socket.AF_UNIX,"
            " socket.SOCK_SEQPACKET); line.connect(sys.argv[1])\n   "
            " line.send(msgpack.packb({'type': kind, 'name': 'client'}));"
            " print(msgpack.unpackb(line.recv(65536))['type'])\n"
        )

        argv = [sys.executable, "-c", code, str(supervisor.paths.control_socket), "64999"]
        said = subprocess.run(argv, capture_output=True, timeout=20)

        assert said.stdout.decode().split() == [
            "table",
            "refused",
            "refused",
            "refused",
        ], said.stderr.decode()


def test_hangup_opens_the_log_again_for_everyone(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        rotated = supervisor.paths.log.with_suffix(".1")
        os.rename(supervisor.paths.log, rotated)

        os.kill(supervisor.pid, signal.SIGHUP)
        until = time.monotonic() + 10
        while supervisor.log().count("reconfigured") < 3 or "opened again" not in supervisor.log():
            assert time.monotonic() < until, supervisor.log()
            time.sleep(0.05)
        os.kill(supervisor.row("client")["pid"], signal.SIGKILL)
        supervisor.wait(
            lambda rows: rows["client"]["state"] == "READY" and rows["client"]["restarts"] == 1
        )

        assert supervisor.log().count("client configured") == 1
        pids = (supervisor.pid, *(row["pid"] for row in supervisor.rows_now().values()))
        assert str(rotated) not in {link for pid in pids for link in held(pid).values()}


def test_a_full_run_changes_nothing(root: Path) -> None:
    (root / "run").mkdir()
    script = f'mount -t tmpfs -o size=400k none {root}/run && exec "$@"'
    before = ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    with a_supervisor(root, ROWS, before=before) as supervisor:
        time.sleep(0.5)
        supervisor.paths = Paths(f"/proc/{supervisor.pid}/root{root}")
        supervisor.wait_ready(*NAMES)
        with (
            pytest.raises(OSError),
            open(supervisor.paths.run / "filler", "wb", buffering=0) as filler,
        ):
            while True:
                filler.write(b"x" * 4096)
        old = supervisor.row("client")["pid"]

        os.kill(old, signal.SIGKILL)
        supervisor.wait(
            lambda rows: rows["client"]["state"] == "READY" and rows["client"]["pid"] != old
        )

        in_file = {row["name"]: row["pid"] for row in supervisor.state_file()["workers"]}
        assert in_file["client"] == supervisor.row("client")["pid"]


def test_workers_that_ran_well_are_restarted_without_a_pause(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        time.sleep(5.2)
        took_ms, seen = [], set()
        for name in NAMES:
            old = supervisor.row(name)["pid"]
            killed_at = time.monotonic()
            os.kill(old, signal.SIGKILL)
            row = supervisor.row(name)
            while row["pid"] == old or row["state"] not in ("INIT", "READY"):
                row = supervisor.row(name)
                seen.add(row["state"])
            took_ms.append((row["since"] - killed_at) * 1000)

        # the budget is the bench's, on a machine of its own
        print("SIGKILL to hello or ready, ms:", [round(value) for value in took_ms])
        assert "BACKOFF" not in seen
