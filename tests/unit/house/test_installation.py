"""`setup.py install` as a plan: what lands where, what the launchers are, and the way back."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from waagent.distro import installation, installation_steps, service_registration
from waagent.distro.installation import Copy, Environment, Options, Register, Write

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = Options(
    checkout=ROOT,
    root=Path("/stage"),
    prefix="/usr",
    init_system="systemd",
    python="/usr/bin/python3",
)


def a_stage(tmp_path: Path) -> Options:
    options = replace(OPTIONS, root=tmp_path)
    options.private.mkdir(parents=True)
    return options


def test_the_environment_is_built_beside_the_running_one_and_renamed() -> None:
    step = installation.plan_installation(OPTIONS)[0]

    assert isinstance(step, Environment)
    assert step.target == Path("/stage/usr/lib/waagent.new")
    assert step.final == Path("/stage/usr/lib/waagent")
    assert any(name.startswith("pyzmq") for name in step.requirements)


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
    file.write_bytes(
        installation.launcher("/usr/lib/waagent/bin/python", "waagent.supervisor.commands.main")
    )

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


def test_an_environment_of_another_python_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "waagent"
    file.write_bytes(installation.launcher("/usr/lib/waagent/bin/python", "not_there.at_all"))

    done = subprocess.run(
        [sys.executable, "-I", str(file), "-version"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    version = ".".join(map(str, sys.version_info[:2]))
    assert f"not usable by Python {version}" in done.stderr
    assert "/usr/lib/waagent: install the agent again" in done.stderr


def test_a_configuration_file_that_was_changed_is_kept(tmp_path: Path) -> None:
    options = a_stage(tmp_path)
    target = tmp_path / "waagent.conf"
    target.write_text("Logs.Verbose=y\n")

    installation_steps.Installer(options).carry_out(
        (Copy("etc/waagent.conf", target, 0o644, keep=True),)
    )

    assert target.read_text() == "Logs.Verbose=y\n"
    assert (tmp_path / "waagent.conf.new").read_bytes() == (
        ROOT / "etc" / "waagent.conf"
    ).read_bytes()


def test_a_configuration_file_as_installed_is_replaced_by_an_upgrade(tmp_path: Path) -> None:
    options = a_stage(tmp_path)
    target = tmp_path / "waagent.conf"
    first = Write(target, b"Old=y\n", 0o644, keep=True)
    installation_steps.Installer(options).carry_out((first,))

    installation_steps.Installer(options).carry_out((replace(first, content=b"New=y\n"),))

    assert target.read_bytes() == b"New=y\n"
    assert not target.with_name("waagent.conf.new").exists()


def test_uninstall_removes_what_was_written_and_keeps_what_was_changed(tmp_path: Path) -> None:
    options = a_stage(tmp_path)
    ours, changed = tmp_path / "usr/share/waagent/a", tmp_path / "etc/waagent.conf"
    installation_steps.Installer(options).carry_out(
        (Write(ours, b"a", 0o644), Write(changed, b"b", 0o644))
    )
    changed.write_bytes(b"mine")

    installation_steps.uninstall(options.private, tmp_path, force=False)

    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["etc/waagent.conf"]
    assert not ours.parent.exists()


@pytest.mark.parametrize("init_system", installation.INIT_SYSTEMS)
def test_every_file_that_is_planned_is_in_the_checkout(init_system: str) -> None:
    steps = installation.plan_installation(replace(OPTIONS, init_system=init_system))

    planned = [step.source for step in steps if isinstance(step, Copy)]
    assert [source for source in planned if not (ROOT / source).is_file()] == []
    assert init_system in service_registration.START


@pytest.mark.parametrize("init_system", installation.INIT_SYSTEMS)
def test_services_start_the_launcher_that_no_other_package_owns(
    init_system: str, tmp_path: Path
) -> None:
    options = replace(a_stage(tmp_path), init_system=init_system, prefix="/opt/waagent")
    options.private.mkdir(parents=True)
    steps = installation.plan_installation(
        replace(options, distro={"rc.d": "freebsd", "rcctl": "openbsd"}.get(init_system, ""))
    )
    copies = tuple(step for step in steps if isinstance(step, Copy) and step.source[:4] == "etc/")

    installation_steps.Installer(options).carry_out(copies)

    texts = {copy.source: copy.path.read_text() for copy in copies}
    named = {name for name, text in texts.items() if "lib/waagent/sbin/waagent" in text}
    assert len(named) >= (2 if init_system != "coreos" else 1)
    for name in named - {"etc/coreos/cloud-config.yml"}:
        assert "/opt/waagent/lib/waagent/sbin/waagent" in texts[name], name


def test_every_document_and_setting_of_ours_is_installed_by_every_way() -> None:
    for init_system in installation.INIT_SYSTEMS:
        steps = installation.plan_installation(replace(OPTIONS, init_system=init_system))
        sources = {step.source for step in steps if isinstance(step, Copy)}
        pages = {f"docs/man/{path.name}" for path in (ROOT / "docs/man").iterdir()}

        assert pages <= sources
        assert {"etc/waagent.conf", "etc/logrotate.d/waagent"} <= sources


def test_the_service_is_registered_only_when_asked() -> None:
    without = installation.plan_installation(OPTIONS)
    with_service = installation.plan_installation(replace(OPTIONS, register_service=True))

    assert not [step for step in without if isinstance(step, Register)]
    assert isinstance(with_service[-1], Register)


def test_an_unknown_init_system_is_one_clear_error() -> None:
    with pytest.raises(installation.InstallationError, match="choose one of coreos, openrc"):
        installation.plan_installation(replace(OPTIONS, init_system="launchd"))


def test_a_copy_without_its_links_installs_without_setuptools(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    for name in (*installation.ROOMS, "docs/man", "waagent"):
        shutil.copytree(
            ROOT / name,
            copy / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in ("setup.py", "setup.cfg"):
        shutil.copy(ROOT / name, copy / name)
    for room in installation.ROOMS:
        (copy / "waagent" / room).unlink()
        (copy / "waagent" / room).write_text(f"../{room}")  # as a zip download leaves it

    done = subprocess.run(
        [sys.executable, "-S", str(copy / "setup.py"), "install", "-help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert "--register-service" in done.stdout


def test_what_a_checkout_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "distro").mkdir()

    missing = installation.missing_parts(tmp_path)

    assert "supervisor" in missing and "distro" not in missing
