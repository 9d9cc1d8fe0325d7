"""The supervisor's own process: what it holds, who may speak to it, that there is one, and what a
full /run changes.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import pytest
from a_supervisor import HERE, HOUSE, ASupervisor, a_supervisor

from waagent.distro.cgroups import groups, trees
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.supervisor.control_server import FOREIGN_CONNECTIONS

ROWS = (
    "[(a_row('environment_monitor', serves=True), {}), (a_row('client', "
    " account=WAAGENT), {}), (a_row('runner', serves=True), {})]"
)
NAMES = ("environment_monitor", "client", "runner")


def held(pid: int) -> dict[str, str]:
    """Number and target of each open descriptor; one that is closed meanwhile is left out."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[number] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


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


def test_a_life_loads_no_module_that_the_size_of_the_core_does_not_count(root: Path) -> None:
    argv = [sys.executable, str(HOUSE / "tests" / "core_size.py"), "--modules"]
    printed = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    counted = {line.split()[0] for line in printed.splitlines()}
    rows = ROWS[:-1] + ", (a_row('sleeper', beat_limit_s=1.0), {'hangs': True})]"
    with a_supervisor(root, rows) as supervisor:
        supervisor.wait_ready(*NAMES)
        supervisor.wait(lambda rows: rows["sleeper"]["restarts"])
        supervisor.ask("restart", name="client")
        supervisor.ask("reload")
        supervisor.ask("stop")
        assert supervisor.process is not None
        supervisor.process.wait(30)

    loaded = set((root / "modules").read_text().split())
    assert loaded - counted == set()


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


def test_a_fatal_error_at_start_reaches_log_journal_and_status_text(root: Path) -> None:
    (root / "run/waagent").mkdir(parents=True)
    (root / "run/waagent/state").mkdir()  # where a file belongs: no supervisor can go on
    argv = [sys.executable, str(HERE / "run_supervisor.py"), str(root), ROWS, "", "none"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(root / "notify"))
        manager.settimeout(20)
        environment = {
            **os.environ,
            "PYTHONPATH": f"{HOUSE}:{HERE}",
            "NOTIFY_SOCKET": str(root / "notify"),
        }

        done = subprocess.run(argv, cwd=HOUSE, env=environment, capture_output=True, timeout=60)

        status = manager.recv(4096).decode()
    assert done.returncode == 1
    assert b"waagent: supervisor ended: IsADirectoryError" in done.stderr
    assert "IsADirectoryError" in (root / "var/log/waagent.log").read_text()
    assert status.startswith("STATUS=failed, next try in 0 s: IsADirectoryError")


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


def test_a_root_worker_has_no_more_authority_than_any_other(root: Path) -> None:
    rows = "[(a_row('runner'), {'commands': ['restart', 'stop', 'reload']}), (a_row('other'), {})]"
    with a_supervisor(root, rows) as supervisor:
        before = supervisor.wait_ready("runner", "other")
        assert before["runner"]["uid"] == 0

        supervisor.wait(lambda rows: "reload: {" in supervisor.log())

        refused = "'type': 'refused', 'reason': 'a worker may not do this, whatever its uid'"
        assert supervisor.log().count(refused) == 3
        after = supervisor.wait_ready("runner", "other")
        assert [after[name]["pid"] for name in after] == [before[name]["pid"] for name in after]
        assert supervisor.ask("restart", name="other")["type"] == "answer"  # root, no worker


WRONG = (
    {"type": "restart"},
    {"type": "restart", "name": 7},
    {"type": "restart", "name": ["client"]},
    {"type": "restart", "name": None},
    {"type": "stop2"},
)


def test_messages_of_wrong_types_are_refused_and_counted(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.settimeout(30)
            line.connect(str(supervisor.paths.control_socket))
            said = []
            for message in WRONG:
                line.send(msgpack.packb(message))
                said.append(control.unpack(line.recv(4096)))

        assert [answer["type"] for answer in said] == ["refused"] * len(WRONG)
        notes = supervisor.ask()["notes"]
        assert f"{len(WRONG)} control messages or connections refused" in notes
        supervisor.wait_ready(*NAMES)


def test_an_error_of_ours_ends_the_process_with_its_traceback(root: Path) -> None:
    rows = "[(a_row('client', beat_limit_s='soon'), {})]"  # found by the first `ready`
    with a_supervisor(root, rows) as supervisor:
        assert supervisor.process is not None

        status = supervisor.process.wait(30)

        assert status == 1
        assert "TypeError" in supervisor.log() and "in _ready" in supervisor.log()


def test_no_user_takes_all_connections_and_root_always_gets_one(root: Path) -> None:
    hold = (
        "import os, socket, sys, time\n"
        "os.setresuid(*[int(sys.argv[2])] * 3)\n"
        "until = time.monotonic() + 4\n"
        "while time.monotonic() < until:\n"
        "    lines = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(30)]\n"
        "    for line in lines:\n"
        "        line.connect(sys.argv[1])\n"
        "    time.sleep(0.05)\n"
    )
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        place = str(supervisor.paths.control_socket)
        users = [
            subprocess.Popen([sys.executable, "-c", hold, place, str(uid)])
            for uid in (64990, 64991, 64992, 64993)
        ]
        try:
            time.sleep(0.5)
            answers = [supervisor.ask()["type"] for _ in range(20)]
        finally:
            for user in users:
                user.kill()
                user.wait()

        assert answers == ["table"] * 20


def test_no_user_can_hold_the_lock_and_the_agent_starts_meanwhile(root: Path) -> None:
    lock = root / "run/waagent/lock/supervisor"
    lock.parent.mkdir(parents=True)
    lock.touch(0o644)  # as an earlier build made it
    lock.chmod(0o644)
    hold = (
        "import fcntl, os, sys, time\n"
        "os.setresuid(64999, 64999, 64999)\n"
        "while True:\n"
        "    try:\n"
        "        fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "        print('held', flush=True)\n"
        "    except OSError:\n"
        "        time.sleep(0.001)\n"
    )
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        user = subprocess.Popen(
            [sys.executable, "-c", hold, str(lock)], stdout=subprocess.PIPE, text=True
        )
        try:
            os.kill(supervisor.pid, signal.SIGKILL)
            assert supervisor.process is not None
            supervisor.process.wait(20)
            time.sleep(0.3)
            supervisor.start()
            supervisor.wait_ready(*NAMES)
        finally:
            user.kill()
        said = user.communicate()[0]

        assert said == ""
        locks = {file.name: stat.S_IMODE(file.stat().st_mode) for file in lock.parent.iterdir()}
        assert locks == dict.fromkeys(("supervisor", *NAMES), 0o600)


def test_a_v2_cgroup_that_refuses_us_is_said_and_the_agent_runs_without_it(root: Path) -> None:
    bases = [group for group in trees.bases_of_self() if group[0] == 2]
    if not bases or Path(bases[0][2], "cgroup.type").exists():
        pytest.skip("no cgroup v2, or none whose neighbours are left alone")
    supervisor = ASupervisor(root, ROWS)
    top = Path(bases[0][2], supervisor.tree)
    try:
        top.mkdir()
        # what is below is an invalid domain now, as below a cgroup that handed pids down too early
        (top / "cgroup.type").write_text("threaded")
    except OSError as error:
        pytest.skip(f"no cgroup can be made threaded here: {error}")
    try:
        supervisor.start()
        rows = supervisor.wait_ready(*NAMES)
        table = supervisor.ask()
        assert all(row["restarts"] == 0 for row in rows.values())
    finally:
        supervisor.end()
        groups.remove([(2, (), str(top))])

    text = f"cgroup v2 at {top}/supervisor takes no process (Operation not supported): not used"
    assert text in table["missing"]
    assert "v2" not in table["cgroups"]


def test_strangers_are_few_and_have_a_second(root: Path) -> None:
    with a_supervisor(root, ROWS) as supervisor:
        supervisor.wait_ready(*NAMES)
        before = len(held(supervisor.pid))
        lines = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(60)]
        for line in lines:
            line.connect(str(supervisor.paths.control_socket))
        time.sleep(0.5)
        assert len(held(supervisor.pid)) - before <= FOREIGN_CONNECTIONS

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


def test_three_rotations_lose_and_split_no_line_of_workers_that_write(root: Path) -> None:
    rows = ROWS.replace("{}", "{'chatters': True}")
    with a_supervisor(root, rows) as supervisor:
        supervisor.wait_ready(*NAMES)
        rotated = [supervisor.paths.log.with_suffix(f".{number}") for number in range(3)]
        for number, aside in enumerate(rotated):
            os.rename(supervisor.paths.log, aside)
            os.kill(supervisor.pid, signal.SIGHUP)
            until = time.monotonic() + 20
            while supervisor.log().count("reconfigured") < 3:
                assert time.monotonic() < until, f"rotation {number}: {supervisor.log()[-2000:]}"
                time.sleep(0.05)
        supervisor.process.terminate()
        supervisor.process.wait(30)

    texts = [path.read_text("utf-8") for path in (*rotated, supervisor.paths.log)]
    line = re.compile(r"\S+Z INFO (\w+)\[\d+\] line (\d+)( of some length){20}")
    told: dict[str, list[int]] = {name: [] for name in NAMES}
    for text in texts:
        assert text.endswith("\n")
        for said in text.splitlines():
            if " line " in said or "some length" in said:
                match = line.fullmatch(said)
                assert match, f"split: {said!r}"
                told[match[1]].append(int(match[2]))
    for name, numbers in told.items():
        assert sorted(numbers) == list(range(len(numbers))) and len(numbers) > 50, name


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
