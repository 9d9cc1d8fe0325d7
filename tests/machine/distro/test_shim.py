"""Operations under their shim: what an author's command finds, how it ends, what is left of it, and
that it runs once.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from waagent.distro import processes
from waagent.distro.cgroups import groups
from waagent.distro.cgroups.trees import Limits
from waagent.distro.operations import launch, leftovers, records

PYTHON = os.path.realpath("/proc/self/exe")
ROOT = str(Path(__file__).resolve().parents[3])


def pss_kib(pid: int) -> int:
    """Proportional set size."""
    return psutil.Process(pid).memory_full_info().pss // 1024


def alive_in(folder: Path, seen: records.Observation) -> list[int]:
    """What lives of the operation, the shim and its drainers apart."""
    place = [
        (version, tuple(controllers), path) for version, controllers, path in seen.started["groups"]
    ]
    if place:
        found = groups.pids(place)
    else:
        found = processes.session_of(
            seen.started["command_pid"], seen.started["command_start_ticks"]
        )
    return [pid for pid in found if processes.is_alive(pid)]


def alive_with(mark: str) -> list[int]:
    """Living processes whose command line holds ``mark``."""
    found = []
    for process in processes.all_processes():
        try:
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in line and process.state not in "ZX":
            found.append(process.pid)
    return found


@pytest.mark.parametrize("code", [0, 7, 127])
def test_the_exit_code_is_the_command_s(bench, code: int) -> None:
    seen = bench.run(f"exit {code}")

    assert (seen.state, seen.exit_code, seen.signal, seen.timed_out) == (
        "finished",
        code,
        None,
        False,
    )


def test_a_signal_is_named_and_is_no_exit_code(bench) -> None:
    seen = bench.run("kill -TERM $$")

    assert (seen.exit_code, seen.signal) == (None, signal.SIGTERM)
    assert records.describe_end(seen) == "Terminated by signal 15 (SIGTERM)"


def test_the_text_passes_through_one_shell_once(bench, tmp_path: Path) -> None:
    seen = bench.run(
        """printf '%s|' "a  b" '$HOME' ; echo "$X" ; pwd""",
        environment={"X": "y z", "PATH": "/bin:/usr/bin"},
    )

    assert seen.stdout.head == b"a  b|$HOME|y z\n" + str(tmp_path).encode() + b"\n"


def test_a_command_finds_what_the_contract_says(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "PYTHONPATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/leak")
    environment = {"PATH": "/usr/bin:/bin", "ConfigSequenceNumber": "3", "TERM": "dumb"}
    script = (
        "cat /proc/self/environ | tr '\\0' '\\n' | sort; echo --; umask; readlink /proc/$$/fd/0; ls"
        " -m /proc/$$/fd; cat /proc/$$/oom_score_adj; grep -E 'Sig(Ign|Blk)|NoNewPrivs'"
        " /proc/self/status; ulimit -Sn; cat /proc/$$/stat | cut -d' ' -f6"
    )

    seen = bench.run(script, environment=environment)

    variables, _, rest = seen.stdout.head.decode().partition("--\n")
    lines = rest.splitlines()
    assert variables.splitlines() == sorted(
        [*(f"{k}={v}" for k, v in environment.items()), f"PWD={bench.folder}"]
    )
    assert lines[:4] == ["0022", "/dev/null", "0, 1, 2", "0"]
    # signals 32 and 33, which no program can set: whoever started the tests may have left them
    # ignored
    libcs_own = 0x1_8000_0000
    assert [int(line.split()[1], 16) & ~libcs_own for line in lines[4:7]] == [0, 0, 0]
    assert lines[7] == "1024"
    assert int(lines[8]) == seen.pid  # a session of its own


def test_at_the_deadline_the_whole_tree_is_gone(bench, wait_for) -> None:
    mark = f"70{random.randrange(10**8):08d}"
    escape = (
        f'setsid sh -c \'trap "" TERM HUP; setsid sleep {mark} & (setsid sleep {mark} &) ; sleep'
        f" {mark}' & "
    )
    folder = bench.start(escape * 4 + f"trap '' TERM; sleep {mark}", deadline_s=2)
    wait_for(lambda: len(alive_with(mark)) >= 13)

    wait_for(lambda: not alive_with(mark))

    seen = bench.end(folder)
    assert (seen.timed_out, seen.signal, seen.exit_code) == (True, signal.SIGKILL, None)
    assert 2.0 <= seen.elapsed_s  # the children alone would have lived for days
    assert records.describe_end(seen) == "Timeout(2)"


def test_a_fork_bomb_ends_at_its_deadline(bench) -> None:
    if bench.tree.description == "none":
        pytest.skip("only a pids limit bounds a fork bomb")
    seen = bench.run("f() { f | f & }; f; sleep 60", deadline_s=2, limits=Limits(None, 64, 20))

    assert seen.timed_out
    assert alive_in(bench.planned[0], seen) == []


def test_the_deadline_spares_what_an_exited_command_left_behind(bench, wait_for) -> None:
    mark = f"71{random.randrange(10**8):08d}"
    folder = bench.start(f"sleep {mark} >/dev/null 2>&1 & exit 0", deadline_s=1)
    seen = bench.end(folder)
    until = time.monotonic() + 2

    wait_for(lambda: time.monotonic() > until)

    assert (seen.exit_code, seen.timed_out, seen.held) == (0, False, False)
    assert len(alive_with(mark)) == 1
    processes.signal_all(alive_with(mark), signal.SIGKILL)


@pytest.fixture
def agents_own() -> Iterator[None]:
    """Stand for the agent's own processes, with whom a shim and its drainers share what they have
    loaded.
    """
    others = [
        subprocess.Popen([PYTHON, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
        for _ in range(6)
    ]
    yield
    for other in others:
        other.kill()
        other.wait()


def test_a_child_that_keeps_the_pipes_goes_on_and_its_writes_never_fail(
    bench, wait_for, tmp_path: Path, agents_own: None
) -> None:
    script = (
        "(i=0; while [ $i -lt 40 ] || [ ! -e go ]; do head -c 20000 /dev/zero || echo fail >>log;"
        " echo x >&2 || echo fail >>log; sleep 0.1; i=$((i+1)); done; echo done >>log) & exit 0"
    )

    seen = bench.run(script)

    (tmp_path / "go").touch()  # the child was still at it
    assert (seen.exit_code, seen.held) == (0, True)
    pid, ticks = seen.started["pid"], seen.started["start_ticks"]
    drainers = [
        found
        for found in processes.tree_of(pid)
        if processes.read_process(found).session == processes.read_process(pid).session
    ]
    wait_for(
        lambda: all(
            Path(f"/proc/{drainer}/cmdline").read_bytes() == b"cat\0" for drainer in drainers
        )
    )
    print(
        "drainer PSS KiB:",
        [pss_kib(drainer) for drainer in drainers],
        bench.tree.description,
    )
    assert sum(pss_kib(drainer) for drainer in drainers) <= 614
    wait_for(lambda: (tmp_path / "log").exists())
    wait_for(lambda: not processes.is_alive(pid, ticks))
    assert (tmp_path / "log").read_text() == "done\n"


def test_a_running_shim_is_small(bench, wait_for, agents_own: None) -> None:
    folder = bench.start("sleep 30")
    wait_for(lambda: records.observe(folder).started)

    pss = pss_kib(records.observe(folder).started["pid"])

    print("shim PSS KiB:", pss, bench.tree.description)
    assert pss <= 6 * 1024


def test_a_hundred_megabytes_are_taken_and_head_and_tail_kept(bench) -> None:
    seen = bench.run("echo first; head -c 104857600 /dev/zero; echo; echo last", deadline_s=120)

    assert seen.exit_code == 0
    assert seen.stdout.head.startswith(b"first\n") and seen.stdout.tail.endswith(b"\nlast\n")
    assert len(seen.stdout.head) == 32 * 1024 and len(seen.stdout.tail) == 64 * 1024
    assert seen.stdout.dropped_bytes == 104857600 + 12 - 96 * 1024
    assert (bench.planned[0] / "output").stat().st_size <= 200 * 1024


def test_yes_is_slowed_and_takes_no_core_of_the_shim(bench, wait_for) -> None:
    folder = bench.start("exec yes", deadline_s=4)
    wait_for(lambda: records.observe(folder).started)
    pid = records.observe(folder).started["pid"]
    wait_for(lambda: (records.observe(folder).elapsed_s or 0) > 2)

    used = sum(psutil.Process(pid).cpu_times()[:2])

    assert used < 1.2
    seen = bench.end(folder)
    assert seen.timed_out and seen.stdout.dropped_bytes > 1 << 20


def test_nul_escapes_and_broken_utf8_arrive_as_they_are(bench) -> None:
    seen = bench.run(r"printf 'a\000b\377\376\033[2J'; printf 'e\000' >&2")

    assert (seen.stdout.head, seen.stderr.head) == (b"a\0b\xff\xfe\x1b[2J", b"e\0")


def test_stdout_opened_by_path_for_each_line_keeps_every_line(bench) -> None:
    seen = bench.run("for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i > /dev/stdout; done")

    assert len(seen.stdout.head.splitlines()) == 10


def test_memory_beyond_the_limit_is_named(bench) -> None:
    if "memory" not in bench.tree.description:
        pytest.skip(f"no memory controller ({bench.tree.description})")

    seen = bench.run(
        f"exec {PYTHON} -c \"x = bytearray(200 << 20); x[::4096] = b'x' * len(x[::4096])\"",
        limits=Limits(64, 4096, 20),
    )

    assert seen.signal == signal.SIGKILL and seen.oom_kills == 1 and not seen.timed_out
    assert "out of memory in /" in records.describe_end(seen)


def test_a_folder_that_is_gone_ends_the_operation_with_a_reason(bench, tmp_path: Path) -> None:
    seen = bench.run("echo hi", cwd=str(tmp_path / "nowhere"))

    assert seen.state == "finished" and seen.exit_code is None
    assert "nowhere" in records.describe_end(seen)


def test_a_command_too_long_to_execute_ends_with_a_reason(bench) -> None:
    seen = bench.run("echo " + "x" * 200_000)

    assert seen.state == "finished" and "Argument list too long" in records.describe_end(seen)


def test_many_shims_for_one_operation_run_it_once(bench, tmp_path: Path) -> None:
    folder = bench.plan("echo run >> count; sleep 1")

    for _ in range(2):
        starters = [
            subprocess.Popen(
                [PYTHON, "-c", START, folder, PYTHON], cwd=ROOT, stderr=subprocess.DEVNULL
            )
            for _ in range(4)
        ]
        assert [starter.wait(60) for starter in starters] == [0] * 4

    seen = bench.end(folder)
    launch.start_shim(folder, python=PYTHON)
    assert seen.exit_code == 0
    assert (tmp_path / "count").read_text() == "run\n"


def shims_of(folder: Path) -> list[int]:
    """Living processes of this operation's shim: at first its command line names the folder, later
    its title does not, but it has it open.
    """
    return alive_with(f"shim/main.py\0{folder}") + [
        pid for pid in alive_with("waagent: shim ") if folder in opened_by(pid)
    ]


def opened_by(pid: int) -> set[Path]:
    found = set()
    with contextlib.suppress(OSError):  # it has ended
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(Path(os.readlink(f"/proc/{pid}/fd/{name}")))
    return found


START = "import sys; from pathlib import Path; from waagent.distro.operations import launch as operations; "
START += "operations.start_shim(Path(sys.argv[1]), python=sys.argv[2])"


def shoot(folder: Path, starter: subprocess.Popen[bytes], after_s: float) -> None:
    """Kill the shim's processes a moment after the first of them is seen."""
    until = time.monotonic() + 30
    while not shims_of(folder) and starter.poll() is None and time.monotonic() < until:
        pass  # a pause would blur the moment
    time.sleep(after_s)
    processes.signal_all(shims_of(folder), signal.SIGKILL)
    starter.wait(60)


def test_started_twice_and_shot_at_any_moment_a_command_runs_at_most_once(
    bench, tmp_path: Path, wait_for
) -> None:
    ends = {"planned": 0, "lost": 0, "finished": 0}
    for turn in range(24):
        count = tmp_path / f"count{turn}"
        # the long ones wait for a late shot, too
        folder = bench.plan(f"echo run >> {count}; sleep {turn % 2 * 0.5 + 0.01}")
        for _ in range(2):
            starter = subprocess.Popen(
                [PYTHON, "-c", START, folder, PYTHON], cwd=ROOT, stderr=subprocess.DEVNULL
            )
            shoot(folder, starter, 0.0016 * turn)
            wait_for(lambda folder=folder: not shims_of(folder))
            # a dying process closes its files late
            wait_for(lambda folder=folder: records.observe(folder).state != "running")

        runs = count.read_text().count("run") if count.exists() else 0
        state = records.observe(folder).state
        assert runs <= 1, (turn, state)
        assert (runs, state) not in ((1, "planned"), (0, "finished")), turn
        ends[state] += 1
    print(ends)
    assert ends["finished"] < 24


def test_a_shot_shim_is_seen_as_lost_and_its_command_can_be_ended(bench, wait_for) -> None:
    mark = f"72{random.randrange(10**8):08d}"
    folder = bench.start(f"setsid sleep {mark} & sleep {mark}")
    wait_for(lambda: len(alive_with(mark)) == 2 + 1)  # the shell's command line holds it too
    os.kill(records.observe(folder).started["pid"], signal.SIGKILL)

    wait_for(lambda: records.observe(folder).state == "lost")
    launch.start_shim(folder, python=PYTHON)
    left = leftovers.kill_leftovers(folder)

    assert left == []
    assert records.observe(folder).state == "lost"
    if bench.tree.description != "none":
        assert alive_with(mark) == []
    processes.signal_all(alive_with(mark), signal.SIGKILL)


def test_a_command_shot_before_its_first_instruction_ends_like_any_other(bench, wait_for) -> None:
    ends = []
    for _ in range(12):
        folder = bench.start("exec sleep 30")
        # between it and the first instruction lies the time of an fsync
        wait_for((folder / "started.json").exists, pause_s=0)

        os.kill(records.observe(folder).started["command_pid"], signal.SIGKILL)
        ends.append(bench.end(folder).signal)

    assert ends == [signal.SIGKILL] * 12


def test_leftovers_of_an_ended_operation_can_be_ended(bench, wait_for) -> None:
    mark = f"73{random.randrange(10**8):08d}"
    folder = bench.start(f"setsid sleep {mark} & exit 0")
    seen = bench.end(folder)
    assert seen.held and len(alive_with(mark)) == 1

    assert leftovers.kill_leftovers(folder) == []

    assert alive_with(mark) == []


def test_a_frozen_shim_costs_the_command_no_time(bench, wait_for) -> None:
    folder = bench.start("sleep 6; echo whole", deadline_s=15)
    wait_for(lambda: records.observe(folder).started)
    pid = records.observe(folder).started["pid"]
    command = records.observe(folder).pid
    # the command sleeps; stopped before that, it would sleep afterwards
    wait_for(lambda: len(processes.tree_of(command)) > 1)
    stopped = [pid, *processes.tree_of(command)]

    processes.signal_all(stopped, signal.SIGSTOP)  # as a suspended machine stops both
    until = time.monotonic() + 16
    wait_for(lambda: time.monotonic() > until)
    processes.signal_all(stopped, signal.SIGCONT)

    seen = bench.end(folder)
    assert (seen.exit_code, seen.timed_out, seen.stdout.head) == (0, False, b"whole\n")


def test_a_shutdown_signal_to_all_is_recorded_as_the_command_s_end(bench, wait_for) -> None:
    folder = bench.start("sleep 60")
    wait_for(lambda: records.observe(folder).started)
    seen = records.observe(folder)

    processes.signal_all([seen.started["pid"], *processes.tree_of(seen.pid)], signal.SIGTERM)

    assert bench.end(folder).signal == signal.SIGTERM


def test_the_shim_shows_its_handler_and_survives_a_pkill_of_that_name(bench, wait_for) -> None:
    folder = bench.start("pkill -f '[w]aagent: shim Contoso.Test'; sleep 1; exit 3")
    wait_for(lambda: records.observe(folder).started)
    line = Path(f"/proc/{records.observe(folder).started['pid']}/cmdline").read_bytes()

    seen = bench.end(folder)

    assert line == b"waagent: shim Contoso.Test enable\0"
    assert seen.exit_code == 3


def test_an_operation_s_folder_holds_records_for_root_only(bench, wait_for) -> None:
    folder = bench.start("exit 0")

    seen = bench.end(folder)

    assert (folder.stat().st_mode & 0o7777, (folder / "exit.json").stat().st_mode & 0o7777) == (
        0o700,
        0o600,
    )
    left = ["exit.json", "lock", "output", "planned.json", "shim.log", "started.json"]
    wait_for(lambda: sorted(path.name for path in folder.iterdir()) == left)
    assert json.loads((folder / "started.json").read_text())["fence"] == seen.started["fence"]
    assert (folder / "shim.log").read_text() == ""


def test_the_shim_is_outside_of_what_it_kills_and_of_the_agent(bench, wait_for) -> None:
    if bench.tree.description == "none":
        pytest.skip("about cgroups")
    folder = bench.start("sleep 30")
    wait_for(lambda: records.observe(folder).started)
    pid = records.observe(folder).started["pid"]

    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()

    inside = [
        line for line in lines if f"/{bench.tree.name}/Contoso.Test/{folder.name}/shim" in line
    ]
    assert len(inside) >= 1
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) in (-500, 0)


def test_in_a_delegated_scope_the_shim_makes_its_own_leaves(bench, wait_for) -> None:
    if bench.tree.description == "none":
        pytest.skip("about cgroups")
    # systemd-run is not on this machine: its part is played by the next lines
    folder = bench.plan("exec sleep 30", systemd=True)
    planned = json.loads((folder / "planned.json").read_text())
    scope = bench.tree.leaf(launch.scope_name("enable", folder.name), Limits(cpu_weight=100))
    plan = os.memfd_create("plan")
    os.write(plan, launch.shim_plan.to_bytes(launch.crossing(planned, folder.name)))
    os.lseek(plan, 0, os.SEEK_SET)

    subprocess.run(
        [*launch.shim_argv(folder, PYTHON)],
        stdin=plan,
        preexec_fn=scope.join,
        check=True,
        timeout=60,
    )
    wait_for(lambda: records.observe(folder).started)

    started = records.observe(folder).started
    assert started["fence"] == bench.tree.description
    assert all(
        path.endswith(f"enable_{folder.name}.scope/command") for _, _, path in started["groups"]
    )
    assert groups.pids([tuple(group) for group in started["groups"]]) == [started["command_pid"]]
    assert leftovers.may_live(folder)
    assert leftovers.kill_leftovers(folder) == []
    assert bench.end(folder).signal == signal.SIGKILL
    wait_for(lambda: not leftovers.may_live(folder))


def test_what_a_handler_left_behind_lives_until_its_last_process_ends(
    bench, wait_for, tmp_path: Path
) -> None:
    folder = bench.start("setsid sleep 30 >/dev/null 2>&1 & echo $! >pid; exit 0")
    bench.end(folder)
    other = bench.start("exit 0")
    bench.end(other)

    alive = leftovers.may_live(folder), leftovers.may_live(other)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    assert alive == (True, True)  # the handler's, whichever operation began it
    if bench.tree.description != "none":
        wait_for(lambda: not leftovers.may_live(folder))
    assert not leftovers.may_live(bench.folder / "absent")


def test_where_systemd_makes_no_scope_the_operation_has_its_own_place(bench) -> None:
    if os.path.exists("/run/systemd/system"):
        pytest.skip("systemd runs here and would make the scope")

    seen = bench.run("exit 4", systemd=True)

    assert seen.exit_code == 4
    assert seen.started["fence"].startswith(
        bench.tree.description if bench.tree.description != "none" else "no cgroup"
    )


def test_the_cgroups_of_an_ended_operation_can_be_taken_away(bench, wait_for) -> None:
    seen = bench.run("exit 0")
    wait_for(lambda: not processes.is_alive(seen.started["pid"]))

    leftovers.remove_place(bench.planned[0])

    assert bench.tree.existing() == []


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system with room for a plan and little else."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]).returncode
    ):
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Take the last byte."""
    filler = folder / "filler"
    with open(filler, "ab", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                return filler


def test_a_full_disk_when_planning_is_an_error_and_no_operation(bench, small_disk: Path) -> None:
    fill(small_disk)

    with pytest.raises(OSError):
        bench.plan("echo hi", folder=small_disk / "one")

    assert records.observe(small_disk / "one").state == "absent"


def test_a_disk_that_is_full_after_planning_does_not_stop_the_operation(
    bench, small_disk: Path
) -> None:
    folder = bench.plan("head -c 300000 /dev/zero; exit 5", folder=small_disk / "one")
    filler = fill(small_disk)
    try:
        launch.start_shim(folder, python=PYTHON)
        seen = bench.end(folder)
    finally:
        filler.unlink()

    assert seen.exit_code == 5
    assert json.loads((folder / "exit.json").read_text())["stdout_bytes"] == 300000


def test_without_room_for_started_nothing_is_run_until_there_is(
    bench, small_disk: Path, tmp_path: Path
) -> None:
    folder = bench.plan("echo run >> count", folder=small_disk / "one")
    (folder / ".reserve").unlink()
    filler = fill(small_disk)

    launch.start_shim(folder, python=PYTHON)
    time.sleep(0.5)
    while records.observe(folder).state == "running":
        time.sleep(0.01)
    assert records.observe(folder).state == "planned" and not (tmp_path / "count").exists()
    filler.unlink()
    launch.start_shim(folder, python=PYTHON)

    assert bench.end(folder).exit_code == 0
    assert (tmp_path / "count").read_text() == "run\n"


def test_without_room_for_the_exit_record_it_waits_for_the_next_free_byte(
    bench, small_disk: Path, wait_for
) -> None:
    folder = bench.plan(
        "echo hi; while [ ! -e go ]; do sleep 0.1; done; exit 9", folder=small_disk / "one"
    )
    launch.start_shim(folder, python=PYTHON)
    wait_for(lambda: records.observe(folder).started)
    (folder / ".reserve").unlink()
    filler = fill(small_disk)
    (bench.folder / "go").touch()
    command = records.observe(folder).pid
    wait_for(lambda: not processes.is_alive(command))
    time.sleep(1.5)
    assert records.observe(folder).state == "running"

    filler.unlink()

    assert bench.end(folder).exit_code == 9
    assert sys.version_info >= (3, 9)
