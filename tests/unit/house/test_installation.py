"""`setup.py install` as a plan: what lands where, and what the launchers are."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from waagent.distro import installation
from waagent.distro.installation import Copy, Environment, Execute, Options, Write

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = Options(
    checkout=ROOT,
    root=Path("/stage"),
    prefix="/usr",
    init_system="systemd",
    python="/usr/bin/python3",
)


def test_the_environment_is_built_beside_the_running_one_and_renamed() -> None:
    steps = installation.plan_installation(OPTIONS)

    assert steps[0] == Environment(
        Path("/stage/usr/lib/waagent.new"),
        Path("/stage/usr/lib/waagent"),
        "/usr/bin/python3",
        ROOT,
        None,
    )


def test_launchers_name_the_final_interpreter_not_the_stage() -> None:
    steps = installation.plan_installation(OPTIONS)

    launcher = next(
        step
        for step in steps
        if isinstance(step, Write) and step.path == Path("/stage/usr/sbin/waagent")
    )
    assert launcher.content.startswith(b"#!/usr/lib/waagent/bin/python -I\n")
    assert launcher.mode == 0o755


def test_a_launcher_loaded_as_a_module_does_nothing(tmp_path: Path) -> None:
    file = tmp_path / "waagent"
    file.write_bytes(installation.launcher("/usr/bin/python3", "waagent.supervisor.commands.main"))

    loaded = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"import runpy; runpy.run_path({str(file)!r}, run_name='waagent')",
        ],
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (loaded.returncode, loaded.stdout, loaded.stderr) == (0, b"", b"")


def test_a_configuration_file_that_was_changed_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "waagent.conf"
    target.write_text("Logs.Verbose=y\n")

    installation.carry_out((Copy("waagent.conf", target, 0o644, keep=True),))

    assert target.read_text() == "Logs.Verbose=y\n"
    assert (tmp_path / "waagent.conf.new").read_bytes() == (
        ROOT / "etc" / "waagent.conf"
    ).read_bytes()


@pytest.mark.parametrize("init_system", sorted(installation.REGISTRATION))
def test_every_file_that_is_planned_is_in_etc(init_system: str) -> None:
    steps = installation.plan_installation(replace(OPTIONS, init_system=init_system))

    assert [
        step.source
        for step in steps
        if isinstance(step, Copy) and not (ROOT / "etc" / step.source).is_file()
    ] == []


def test_the_service_is_registered_only_when_asked() -> None:
    without = installation.plan_installation(OPTIONS)
    with_service = installation.plan_installation(replace(OPTIONS, register_service=True))

    assert not [step for step in without if isinstance(step, Execute)]
    assert ("systemctl", "enable", "--now", "waagent.service") in [
        step.argv for step in with_service if isinstance(step, Execute)
    ]


def test_an_unknown_init_system_is_one_clear_error() -> None:
    with pytest.raises(installation.InstallationError, match="choose one of openrc"):
        installation.plan_installation(replace(OPTIONS, init_system="launchd"))
