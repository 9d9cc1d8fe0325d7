"""What `python3 setup.py install` does: a plan as frozen data, and the hand that carries it out.

The agent lives in a virtual environment of its own below ``<prefix>/lib/waagent``; the running
Python's site-packages are never touched (PEP 668). An upgrade builds ``waagent.new`` beside the
running one and renames. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from waagent.distro.compatible_module import as_module
from waagent.protocol.base.errors import ExplainedError

COMMANDS = {
    "waagent": "waagent.supervisor.commands.main",
    "waagent-ps": "waagent.supervisor.ps.main",
    "waagent-lab": "waagent.lab.commands",
}
_PIP_LIMIT_S = 1800  # a slow mirror; lxml and cryptography may have to be built on FreeBSD


class InstallationError(ExplainedError):
    """`setup.py install` cannot go on."""


@dataclass(frozen=True)
class Options:
    """What a person asked for on the command line of `setup.py install`."""

    checkout: Path
    root: Path
    prefix: str
    init_system: str
    python: str
    wheels: Path | None = None
    force: bool = False
    register_service: bool = False


@dataclass(frozen=True)
class Environment:
    """Build the virtual environment at ``target`` with the checkout in it, then put it in the place
    of ``final``.
    """

    target: Path
    final: Path
    python: str
    checkout: Path
    wheels: Path | None


@dataclass(frozen=True)
class Write:
    """A file of ours; ``keep`` leaves one that a person may have changed."""

    path: Path
    content: bytes
    mode: int
    keep: bool = False


@dataclass(frozen=True)
class Copy:
    """A file of `etc/`, ``source`` relative to it."""

    source: str
    path: Path
    mode: int
    keep: bool = False


@dataclass(frozen=True)
class Execute:
    """A command of the init system; its failure is an error that names it."""

    argv: tuple[str, ...]


# source below etc/            installed as                              mode   init systems ("" =
# all)  keep a changed one
FILES: tuple[tuple[str, str, int, str, bool], ...] = (
    ("waagent.conf", "/etc/waagent.conf", 0o644, "", True),
    ("logrotate.d/waagent", "/etc/logrotate.d/waagent", 0o644, "", True),
    ("tmpfiles.d/waagent.conf", "/usr/lib/tmpfiles.d/waagent.conf", 0o644, "systemd", False),
    ("sysusers.d/waagent.conf", "/usr/lib/sysusers.d/waagent.conf", 0o644, "systemd", False),
    ("systemd/waagent.service", "/usr/lib/systemd/system/waagent.service", 0o644, "systemd", False),
    ("openrc/waagent", "/etc/init.d/waagent", 0o755, "openrc", False),
    ("sysv/waagent", "/etc/init.d/waagent", 0o755, "sysv", False),
    ("upstart/waagent.conf", "/etc/init/waagent.conf", 0o644, "upstart", False),
    ("freebsd/waagent", "/usr/local/etc/rc.d/waagent", 0o755, "rc.d", False),
)

REGISTRATION: dict[str, tuple[tuple[str, ...], ...]] = {
    "systemd": (
        ("systemd-sysusers",),
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "--now", "waagent.service"),
    ),
    "openrc": (("rc-update", "add", "waagent", "default"), ("rc-service", "waagent", "start")),
    "sysv": (("update-rc.d", "waagent", "defaults"), ("service", "waagent", "start")),
    "upstart": (("initctl", "reload-configuration"), ("start", "waagent")),
    "rc.d": (("sysrc", "waagent_enable=YES"), ("service", "waagent", "start")),
}


def find_init_system(root: Path) -> str:
    """Which init system the machine at ``root`` starts with: a key of REGISTRATION."""
    signs = (
        ("run/systemd/system", "systemd"),
        ("sbin/openrc-run", "openrc"),
        ("sbin/initctl", "upstart"),
        ("etc/rc.subr", "rc.d"),
        ("usr/lib/systemd/systemd", "systemd"),
        ("lib/systemd/systemd", "systemd"),
    )
    return next((name for sign, name in signs if (root / sign).exists()), "sysv")


def plan_installation(options: Options) -> tuple[object, ...]:
    """Every step in order. Raises InstallationError for an init system that nobody knows."""
    if options.init_system not in REGISTRATION:
        known = ", ".join(sorted(REGISTRATION))
        raise InstallationError(
            "unknown init system", f"--init-system={options.init_system}", f"choose one of {known}"
        )
    prefix = options.root / options.prefix.lstrip("/")
    environment = Environment(
        prefix / "lib" / "waagent.new",
        prefix / "lib" / "waagent",
        options.python,
        options.checkout,
        options.wheels,
    )
    interpreter = f"{options.prefix.rstrip('/')}/lib/waagent/bin/python"
    launchers = [
        Write(prefix / "sbin" / name, command_file(name, interpreter, module), 0o755)
        for name, module in COMMANDS.items()
    ]
    files = [
        Copy(source, options.root / target.lstrip("/"), mode, keep and not options.force)
        for source, target, mode, init, keep in FILES
        if init in ("", options.init_system)
    ]
    service = (
        [Execute(argv) for argv in REGISTRATION[options.init_system]]
        if options.register_service
        else []
    )
    return (environment, *launchers, *files, *service)


def command_file(name: str, interpreter: str, module: str) -> bytes:
    """The file of a command; `waagent` is a module for old handlers, too."""
    environment = interpreter[: -len("/bin/python")]
    return launcher(interpreter, module) + (as_module(environment) if name == "waagent" else b"")


def launcher(interpreter: str, module: str) -> bytes:
    """A command in sbin. ``-I`` keeps the caller's directory, PYTHONPATH and user site out of a
    root process.

    Its top level imports nothing: handlers of the old school load `/usr/sbin/waagent` as a module
    with a Python of their own.
    """
    return (
        f"#!{interpreter} -I\n"
        "# -*- coding: utf-8 -*-\n"
        'if __name__ == "__main__":\n'
        "    import sys\n"
        f"    from {module} import main\n"
        "    sys.exit(main())\n"
    ).encode()


def carry_out(steps: tuple[object, ...]) -> None:
    """Carry out every step, saying each on stdout. Raises InstallationError at the first that
    fails.
    """
    for step in steps:
        if isinstance(step, Environment):
            print(f"environment {step.final}")
            _build_environment(step)
        elif isinstance(step, Write):
            print(f"write       {step.path}")
            _put(step.path, step.content, step.mode, step.keep)
        elif isinstance(step, Copy):
            print(f"write       {step.path}")
            _put(step.path, _data_file(step.source), step.mode, step.keep)
        elif isinstance(step, Execute):
            print(f"run         {' '.join(step.argv)}")
            _execute(list(step.argv), 120)


def _build_environment(step: Environment) -> None:
    shutil.rmtree(step.target, ignore_errors=True)
    step.target.parent.mkdir(parents=True, exist_ok=True)
    # setuptools would pack modules that are gone
    shutil.rmtree(step.checkout / "build", ignore_errors=True)
    old_umask = os.umask(0o022)  # workers under other uids import from here
    try:
        _execute([step.python, "-m", "venv", str(step.target)], 120, hint="install python3-venv")
        source = ["--no-index", "--find-links", str(step.wheels)] if step.wheels else []
        pip = [
            str(step.target / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *source,
        ]
        _execute(
            [*pip, str(step.checkout)],
            _PIP_LIMIT_S,
            hint="see pip's message; without a network: --wheels FOLDER",
        )
    finally:
        os.umask(old_umask)
    for script in (step.target / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()  # they name the folder they were made in; ours are the launchers
    old = step.final.with_name("waagent.old")
    shutil.rmtree(old, ignore_errors=True)
    if step.final.exists():
        step.final.rename(old)
    step.target.rename(step.final)
    shutil.rmtree(old, ignore_errors=True)


def _data_file(source: str) -> bytes:
    return (Path(__file__).resolve().parent.parent / "etc" / source).read_bytes()


def _put(path: Path, content: bytes, mode: int, keep: bool) -> None:
    if keep and path.exists() and path.read_bytes() != content:
        path = path.with_name(path.name + ".new")
        print(f"            kept yours, the new one is {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    temporary.write_bytes(content)
    temporary.chmod(mode)
    temporary.rename(path)


def _execute(argv: list[str], deadline_s: int, hint: str = "see its message above") -> None:
    try:
        finished = subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=deadline_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallationError(f"{argv[0]} failed", str(error), hint) from error
    if finished.returncode != 0:
        raise InstallationError(
            f"{' '.join(argv[:4])} failed", f"exit status {finished.returncode}", hint
        )
