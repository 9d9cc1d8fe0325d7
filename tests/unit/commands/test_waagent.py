"""`waagent` as people and scripts run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from waagent import __version__
from waagent.distro import our_python
from waagent.protocol.configuration import loading, options
from waagent.supervisor import roster
from waagent.supervisor.commands import about, manual_pages

CHECKOUT = Path(about.__file__).resolve().parents[2]


def run(
    *words: str, user: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "waagent", *words],
        capture_output=True,
        text=True,
        timeout=60,
        user=user,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
    )


def a_root(tmp_path: Path, configuration: str = "") -> Path:
    (tmp_path / "etc").mkdir(mode=0o755)
    (tmp_path / "etc/waagent.conf").write_text(configuration)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    return tmp_path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.mark.parametrize("word", ["-help", "--help", "-h", "/?", "usage"])
def test_help_goes_to_stdout(word: str) -> None:
    finished = run(word)

    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("usage: waagent ")


def test_no_command_is_usage_and_a_failure() -> None:
    finished = run()

    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr == run("-help").stdout


def test_version_is_exactly_three_lines(tmp_path: Path) -> None:
    finished = run("-version", "--root", str(a_root(tmp_path)))

    python = ".".join(map(str, sys.version_info[:3]))
    assert (
        finished.stdout
        == f"WALinuxAgent-{__version__} running on debian 12\nPython: {python}\nGoal state agent:"
        f" {__version__}\n"
    )
    assert finished.returncode == 0


def test_an_unknown_word_does_nothing_and_says_so() -> None:
    finished = run("-daemon", "-bogus")

    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr == "waagent: unknown word '-bogus': command line: try waagent -help\n"


@pytest.mark.parametrize(
    "word",
    ["-install", "-setup-firewall=1.2.3.4"],
)
def test_a_command_of_later_versions_says_so(word: str) -> None:
    finished = run(word)

    assert (finished.returncode, finished.stdout) == (1, "")
    assert "is not in this version" in finished.stderr and finished.stderr.count("\n") == 1


@needs_root
@pytest.mark.parametrize("word", ["-deprovision", "-deprovision+user"])
def test_nothing_is_deprovisioned_without_being_asked_or_forced(tmp_path: Path, word: str) -> None:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "etc/ssh/ssh_host_rsa_key").write_text("x")

    finished = run(word, "--root", str(tmp_path))

    assert (finished.returncode, finished.stdout) == (1, "")
    assert "needs -force" in finished.stderr and finished.stderr.count("\n") == 1
    assert (tmp_path / "etc/ssh/ssh_host_rsa_key").exists()


@needs_root
def test_a_command_that_needs_root_says_so(tmp_path: Path) -> None:
    if about.first_obstacle([CHECKOUT / "waagent", Path(sys.executable).resolve()]) is not None:
        pytest.skip("other users cannot read this checkout or this Python")

    finished = run("-daemon", "--root", str(tmp_path), user=65534)

    assert (finished.returncode, finished.stderr) == (
        1,
        "waagent: -daemon needs root; try: sudo waagent -daemon\n",
    )


def test_show_configuration_prints_what_is_in_force(tmp_path: Path) -> None:
    root = a_root(tmp_path, "LBProbeResponder=n\nResourceDisk.SwapSizeMB=lots\n")

    finished = run("-show-configuration", "-verbose", "--root", str(root))

    lines = finished.stdout.splitlines()
    assert f"LBProbeResponder = False  # {root}/etc/waagent.conf:1" in lines
    assert "ResourceDisk.SwapSizeMB = 0  # default" in lines
    assert "Role.StateConsumer = None  # default" in lines
    assert lines == sorted(lines)
    assert finished.returncode == 0
    assert (
        finished.stderr
        == "waagent: 1 finding in the configuration: see waagent -check-configuration\n"
    )


def test_check_configuration_names_file_line_option_problem_and_remedy(tmp_path: Path) -> None:
    draft = tmp_path / "draft.conf"
    draft.write_text("\nResourceDisk.SwapSizeMB=lots\n")

    finished = run("-check-configuration", str(draft), "--root", str(a_root(tmp_path)))

    assert finished.returncode == 1
    assert (
        finished.stdout.splitlines()[0]
        == f"{draft}:2: ResourceDisk.SwapSizeMB: 'lots' is no number, using 0: write digits, 0 to"
        " 1048576"
    )


def test_check_configuration_names_missing_tools_with_their_package(tmp_path: Path) -> None:
    root = a_root(tmp_path, "ResourceDisk.Filesystem=btrfs\n")

    finished = run("-check-configuration", "--root", str(root))

    if not os.path.exists("/usr/sbin/mkfs.btrfs") and not os.path.exists("/sbin/mkfs.btrfs"):
        assert (
            "mkfs.btrfs: the program is missing, the resource disk is not formatted: apt install"
            " btrfs-progs" in finished.stdout
        )
        assert finished.returncode == 1
    good = tmp_path / "good.conf"
    good.write_text("Logs.Verbose=y\n")
    assert run("-check-configuration", str(good)).returncode == 0


def test_a_missing_configuration_path_is_an_error(tmp_path: Path) -> None:
    finished = run("-show-configuration", f"-configuration-path:{tmp_path}/none")

    assert finished.returncode == 1
    assert "no configuration file" in finished.stderr and finished.stderr.count("\n") == 1


def test_stop_without_a_supervisor_says_so(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    finished = run("-stop", "--root", str(tmp_path))

    assert finished.returncode == 1
    assert "does not answer" in finished.stderr and finished.stderr.count("\n") == 1


def test_an_error_is_one_line_and_a_traceback_only_with_verbose(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = a_root(tmp_path)
    (root / "run").write_text("a file where a folder should be")

    short, long = run("-start", "--root", str(root)), run("-start", "-verbose", "--root", str(root))

    assert (short.returncode, short.stderr.count("\n")) == (1, 1)
    assert str(root / "run") in short.stderr
    assert "Traceback" in long.stderr and long.returncode == 1


def test_the_keys_of_the_roster_are_options() -> None:
    keys = {key for row in roster.ROSTER for key in (*row.keys, row.switch) if key}

    prefixes = {f"{name.partition('.')[0]}." for name in options.OPTIONS}
    assert keys <= set(options.OPTIONS) | prefixes


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)

    finished = subprocess.run(
        [sys.executable, "-m", "waagent", "-show-configuration"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        cwd=CHECKOUT,
    )
    os.close(writing)

    assert "Traceback" not in finished.stderr and "Exception" not in finished.stderr


def test_a_folder_that_others_may_not_enter_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "python").mkdir(parents=True)
    for folder in (tmp_path, closed / "python"):
        folder.chmod(0o755)
    closed.chmod(0o700)

    obstacle = about.first_obstacle([closed / "python"])

    assert obstacle is not None
    assert "other users may not enter it" in obstacle.problem and "chmod o+x" in obstacle.remedy


@pytest.mark.parametrize("name", sorted(manual_pages.texts()))
def test_a_generated_file_is_what_its_table_says(name: str) -> None:
    path = CHECKOUT / name
    if not path.exists():
        pytest.skip(f"{name} is not installed")

    assert path.read_text(encoding="ascii") == manual_pages.texts()[name], (
        "run: python -m waagent.supervisor.commands.manual_pages"
    )


def test_the_sample_file_has_every_documented_option_with_its_default() -> None:
    text = manual_pages.sample_configuration()
    loaded = loading.load_bytes(text.encode())
    uncommented = loading.load_bytes(re.sub(r"(?m)^# (?=[A-Z]\w*(\.\w+)?=\S*$)", "", text).encode())

    seed = [option for option in options.OPTIONS.values() if option.use == options.SEED]
    assert set(loaded.origins) <= {option.name for option in seed}
    assert [
        option.name
        for option in seed
        if f"\n{option.name}={manual_pages.written(option.default)}\n" not in text
    ] == []
    assert loaded.values == uncommented.values == loading.defaults()
    assert loaded.findings == uncommented.findings == ()


def test_manual_pages_are_roff_without_a_mistake() -> None:
    for name, text in manual_pages.texts().items():
        if name.startswith("docs/man"):
            requests = {
                line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))
            }
            assert requests <= {".TH", ".SH", ".TP", ".B", ".PP"}


def test_accounts_are_those_of_the_roster() -> None:
    text = manual_pages.accounts()

    assert (
        f"u {roster.WAAGENT.name} {roster.WAAGENT.number} " in text
        and f"g {roster.BUS_GROUP.name} {roster.BUS_GROUP.number}" in text
    )


def test_the_unit_keeps_what_the_design_decides() -> None:
    unit = (CHECKOUT / "etc/systemd/waagent.service").read_text(encoding="ascii")

    for line in (
        "Type=notify",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "KillMode=mixed",
        "Delegate=yes",
    ):
        assert f"\n{line}\n" in unit
    assert "WatchdogSec=" in unit and "\nRuntimeDirectory=" not in unit


@pytest.mark.parametrize(
    "name",
    [
        "etc/sysv/waagent",
        "etc/freebsd/waagent",
        "etc/openrc/waagent",
        "etc/bash_completion.d/waagent",
    ],
)
def test_scripts_are_shell(name: str) -> None:
    shell = "bash" if "completion" in name else "sh"

    assert (
        subprocess.run([shell, "-n", str(CHECKOUT / name)], capture_output=True, timeout=20).stderr
        == b""
    )


def test_the_guardian_starts_again_what_died_and_stops_what_was_told(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >>{count}; [ $(wc -l <{count}) -lt 3 ] && kill -9 $$; exec sleep 1000"
    guardian = our_python.argv(
        "waagent.supervisor.commands.guardian", str(tmp_path / "lock"), "/bin/sh", "-c", script
    )

    first = subprocess.Popen(guardian)
    deadline = time.monotonic() + 60
    while (
        not (count.exists() and count.read_text().count("x") == 3) and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    second = subprocess.run(guardian, timeout=60)
    first.terminate()

    assert first.wait(60) == 0
    assert second.returncode == 0
    assert count.read_text().count("x") == 3
