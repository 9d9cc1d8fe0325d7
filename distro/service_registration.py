"""The service of an installation: accounts, enable, start; what became of it, and why it does not
run. And the way back. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro.installation import PREDECESSOR_UNIT, InstallationError, Register

Say = Callable[[str], None]

SERVING_S = 60.0  # a slow machine
TAKE_UP_S = 20.0  # above the 10 s within which a running agent notices another build
TOOL_S = 120.0
_LAST_LINES = 8
_ENOUGH_FAILURES = 3
_FAILURES = Path("/run/waagent/failures")
"""One byte for each supervisor that could not go on (supervisor/last_words.py)."""

# by init system: what prepares, what enables, what starts, what restarts; what stops and disables
Commands = tuple[tuple[str, ...], ...]
PREPARE: Mapping[str, Commands] = {
    "systemd": (
        ("systemd-sysusers",),
        ("systemd-tmpfiles", "--create", "waagent.conf"),
        ("systemctl", "daemon-reload"),
    ),
    "upstart": (("initctl", "reload-configuration"),),
}
ENABLE: Mapping[str, Commands] = {
    "systemd": (("systemctl", "enable", "--quiet", "waagent.service"),),
    "openrc": (("rc-update", "add", "waagent", "default"),),
    "sysv": (("update-rc.d", "waagent", "defaults"), ("chkconfig", "--add", "waagent")),
    "rc.d": (("sysrc", "waagent_enable=YES"),),
    "rcctl": (("rcctl", "enable", "waagent"),),
}
START: Mapping[str, tuple[str, ...]] = {
    "systemd": ("systemctl", "start", "waagent.service"),
    "openrc": ("rc-service", "waagent", "start"),
    "sysv": ("service", "waagent", "start"),
    "upstart": ("start", "waagent"),
    "rc.d": ("service", "waagent", "start"),
    "rcctl": ("rcctl", "start", "waagent"),
    "coreos": ("systemctl", "start", "waagent.service"),
}
DISABLE: Mapping[str, Commands] = {
    "systemd": (("systemctl", "disable", "--quiet", "waagent.service"),),
    "openrc": (("rc-update", "del", "waagent", "default"),),
    "sysv": (("update-rc.d", "-f", "waagent", "remove"), ("chkconfig", "--del", "waagent")),
    "rc.d": (("sysrc", "-x", "waagent_enable"),),
    "rcctl": (("rcctl", "disable", "waagent"),),
}


def make_accounts(lines: Iterable[str]) -> None:
    """Make what is missing of sysusers.d(5) ``lines``, by shadow's tools or busybox's. Raises
    InstallationError.
    """
    for line in lines:
        kind, name, number = line.split()[:3]
        database = "passwd" if kind == "u" else "group"
        if not _has_entry("group", name):
            _first_that_is_there(
                ("groupadd", "--system", "--gid", number, name),
                ("addgroup", "-S", "-g", number, name),
                ("pw", "groupadd", name, "-g", number),
            )
        if database == "passwd" and not _has_entry("passwd", name):
            _first_that_is_there(
                (
                    *(
                        "useradd",
                        "-K",
                        "SYS_UID_MAX=65000",
                        "--system",
                        "--uid",
                        number,
                        "--gid",
                        number,
                    ),
                    *("--no-create-home", "--home-dir", "/nonexistent"),
                    *("--shell", "/usr/sbin/nologin", name),
                ),
                (
                    *("adduser", "-S", "-D", "-H", "-h", "/nonexistent", "-s", "/sbin/nologin"),
                    *("-u", number, "-G", name, name),
                ),
                (
                    *("pw", "useradd", name, "-u", number, "-g", number),
                    *("-d", "/nonexistent", "-s", "/usr/sbin/nologin"),
                ),
            )


def remove_accounts(lines: Iterable[str]) -> None:
    """Remove what `make_accounts` or systemd-sysusers made."""
    for line in lines:
        kind, name = line.split()[:2]
        if kind == "u" and _has_entry("passwd", name):
            _first_that_is_there(("userdel", name), ("deluser", name), ("pw", "userdel", name))
        if _has_entry("group", name):
            _first_that_is_there(("groupdel", name), ("delgroup", name), ("pw", "groupdel", name))


def register(step: Register, before: int | None, say: Say) -> None:
    """Enable and start the service, or have the agent that ran ``before`` take up what was
    installed. Raises InstallationError with the agent's last words when it does not run.
    """
    ps, log = step.paths
    for argv in PREPARE.get(step.init_system, ()):
        _run(argv, say)
    _end_predecessor(step.init_system, say)
    for argv in ENABLE.get(step.init_system, ()):
        if shutil.which(argv[0]):
            _run(argv, say)
            break
    if before is None:
        _run(START[step.init_system], say, reason=lambda: last_words(step.init_system, log))
        _expect_serving(step.init_system, ps, log, say)
    else:
        _take_up(step, before, say)


def unregister(init_system: str, ps: Path, say: Say) -> None:
    """Stop and disable the service; operations of extensions go on."""
    stop = [word if word != "start" else "stop" for word in START[init_system]]
    if serving_pid(ps) is not None or init_system == "systemd":
        _run(stop, say)
    for argv in DISABLE.get(init_system, ()):
        if shutil.which(argv[0]):
            _run(argv, say)
            break


def serving_pid(ps: Path) -> int | None:
    """The pid of a supervisor that answers `waagent-ps`."""
    table = _table(ps)
    pid = table.get("supervisor", {}).get("pid") if table.get("source") == "supervisor" else None
    return int(pid) if pid else None


def last_words(init_system: str, log: Path) -> str:
    """The last lines that the agent or its init said, in one line each."""
    lines: list[str] = []
    if init_system == "systemd" and shutil.which("journalctl"):
        argv = ("journalctl", "-u", "waagent", "-n", str(_LAST_LINES), "--no-pager", "-o", "cat")
        lines = _said(argv).splitlines()
    if not lines and log.exists():
        lines = log.read_text("utf-8", "replace").splitlines()
    return (
        "".join(f"\n      | {line[:200]}" for line in lines[-_LAST_LINES:]) or " nothing was said"
    )


def _take_up(step: Register, before: int, say: Say) -> None:
    ps, _ = step.paths
    say(f"      pid {before} ran; it takes up the new build by itself as soon as no lease is held")
    if _wait(lambda: serving_pid(ps) not in (None, before), TAKE_UP_S):
        say(f"      taken up: pid {serving_pid(ps)}")
        return
    busy = [row["name"] for row in _table(ps).get("workers", []) if row["state"] == "INIT"]
    if busy:
        say(f"      {busy[0]} is at work and is not interrupted; taken up when it is done")
        return
    restart = [word if word != "start" else "restart" for word in START[step.init_system]]
    _run(restart, say)
    _expect_serving(step.init_system, ps, step.paths[1], say)


def _expect_serving(init_system: str, ps: Path, log: Path, say: Say) -> None:
    if init_system == "systemd" and "ConditionResult=no" in _said(
        ("systemctl", "show", "waagent.service", "-p", "ConditionResult")
    ):
        say("      not started: this is no virtual machine (ConditionVirtualization=vm):")
        say("      installed and enabled; to start it here: systemctl edit waagent")
        return
    _wait(lambda: serving_pid(ps) is not None or _failures() >= _ENOUGH_FAILURES, SERVING_S)
    if serving_pid(ps) is None:
        raise InstallationError(
            "the service does not run", f"its last words:{last_words(init_system, log)}", "see them"
        )
    say(f"      the service runs: pid {serving_pid(ps)}; see waagent-ps")


def _failures() -> int:
    return _FAILURES.stat().st_size if _FAILURES.exists() else 0


def _end_predecessor(init_system: str, say: Say) -> None:
    """One agent on a machine: a walinuxagent.service of another package is stopped and disabled."""
    if init_system != "systemd":
        return
    fragment = _said(("systemctl", "show", PREDECESSOR_UNIT, "-p", "FragmentPath", "--value"))
    if fragment.strip() and Path(fragment.strip()).name == PREDECESSOR_UNIT:
        say(f"      {fragment.strip()} is another agent's: stopped and disabled")
        _run(("systemctl", "disable", "--now", "--quiet", PREDECESSOR_UNIT), say)


def _run(argv: Iterable[str], say: Say, reason: Callable[[], str] = str) -> None:
    words = list(argv)
    say(f"      {' '.join(words)}")
    try:
        status = subprocess.run(
            words, stdin=subprocess.DEVNULL, timeout=TOOL_S, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallationError(f"{words[0]} failed", str(error), "see its message above") from None
    if status != 0:
        raise InstallationError(
            f"{' '.join(words)} failed", f"exit status {status}{reason()}", "see its message above"
        )


def _first_that_is_there(*commands: tuple[str, ...]) -> None:
    for argv in commands:
        if shutil.which(argv[0]):
            _run(argv, lambda text: None)
            return
    raise InstallationError(
        f"no {commands[0][0]} here", "accounts", "make those of sysusers.d(5) waagent.conf by hand"
    )


def _has_entry(database: str, name: str) -> bool:
    lines = Path("/etc", database).read_text("utf-8", "replace").splitlines()
    return any(line.split(":", 1)[0] == name for line in lines)


def _table(ps: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_said((str(ps), "--json")))
    except ValueError:
        return {}
    return found


def _said(argv: tuple[str, ...]) -> str:
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=TOOL_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _wait(is_true: Callable[[], bool], limit_s: float) -> bool:
    ends_at = time.monotonic() + limit_s
    while not is_true():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.5)
    return True
