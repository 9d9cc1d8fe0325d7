"""Carries out the steps of a deprovisioning. Each says what kept it from being done, and the next
one goes on: an image with one lease left is better than a half-done one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from waagent.distro import boot_marks, dhcp_clients, host_name, root_password
from waagent.distro.distributions import Family
from waagent.distro.fences import prctl
from waagent.distro.files import write_atomic
from waagent.distro.host_name import HOSTS_MARK
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError, run
from waagent.distro.sshd_settings import text_of, without_block
from waagent.supervisor.commands import deprovision_plan as plan
from waagent.supervisor.commands import service
from waagent.supervisor.commands.deprovision_plan import Step
from waagent.supervisor.commands.image_places import network_mounts

_TOOL_LIMIT_S = 120.0
_SYSTEM_UIDS = 1000
_MASK = "waagent-mask "  # what the covers are called in the table of mounts
_CLONE_NEWNS = 0x20000


class NotDone(Exception):
    """A step could not be carried out; the text says why."""


class System(NamedTuple):
    """What the steps work on."""

    paths: Paths
    family: Family
    shadow: str


def leave_mask(paths: Paths) -> None:
    """Look at the system as init sees it: a command of an extension has covers over the agent's
    state, which it may take off. Without the right to do so it goes on as it is.
    """
    if not boot_marks.is_running_system(paths) or _MASK not in text_of(Path("/proc/self/mounts")):
        return
    with contextlib.suppress(OSError), open("/proc/1/ns/mnt", "rb") as namespace:
        prctl.libc.setns(namespace.fileno(), _CLONE_NEWNS)


def carry_out(system: System, step: Step) -> None:
    """Do one step. Raises NotDone."""
    try:
        _ACTIONS[step.action](system, step.target)
    except OSError as error:
        raise NotDone(f"{step.target}: {error.strerror}") from error
    except ToolError as error:
        raise NotDone(str(error)) from error


def _mark(system: System, target: str) -> None:
    system.paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(Path(target), b"", mode=0o644)


def _stop(system: System, target: str) -> None:
    pid = service.running_pid(system.paths)
    if pid is None:
        return
    unit = _unit_of(pid)
    if unit and system.paths.under("/run/systemd/system").is_dir():
        run(["systemctl", "stop", unit], deadline_s=_TOOL_LIMIT_S)
        return
    problem = service.ask(system.paths, "stop", wait_for_end=True)
    if problem:
        raise NotDone(problem)


def _unit_of(pid: int) -> str:
    """The systemd service that ``pid`` belongs to; empty when none."""
    for line in text_of(Path(f"/proc/{pid}/cgroup")).splitlines():
        for part in line.rpartition(":")[2].split("/"):
            if part.endswith(".service"):
                return part
    return ""


def _remove(system: System, target: str) -> None:
    _refuse_network(system, target)
    path = Path(target)
    try:
        if path.is_dir() and not path.is_symlink():
            _empty(system, target)
            path.rmdir()
        else:
            path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        # a container binds it: it can be emptied, not removed
        if error.errno != errno.EBUSY or path.is_dir():
            raise
        _truncate(system, target)


def _empty(system: System, target: str) -> None:
    """Remove what is in a folder; other file systems that are mounted in it are not entered."""
    _refuse_network(system, target)
    device = os.lstat(target).st_dev
    problems: list[str] = []
    for folder, folders, _, descriptor in os.fwalk(target):
        for name in list(folders):
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_dev != device:
                folders.remove(name)
                problems.append(f"{folder}/{name} is another file system")
    for _, folders, names, descriptor in os.fwalk(target, topdown=False):
        if os.fstat(descriptor).st_dev != device:
            continue
        for name in (*names, *folders):
            with contextlib.suppress(FileNotFoundError):
                _remove_entry(descriptor, name, device)
    if problems:
        raise NotDone("; ".join(problems))


def _remove_entry(folder: int, name: str, device: int) -> None:
    facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(facts.st_mode):
        os.unlink(name, dir_fd=folder)
    elif facts.st_dev == device:
        with contextlib.suppress(OSError):  # what it holds stays: a mount, said already
            os.rmdir(name, dir_fd=folder)


def _truncate(system: System, target: str) -> None:
    _refuse_network(system, target)
    descriptor = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    os.fsync(descriptor)
    os.close(descriptor)


def _set_name(system: System, target: str) -> None:
    host_name.set_host_name(system.paths, system.family, run, target)
    dhcp_clients.forget_name(system.paths)


def _lock_password(system: System, target: str) -> None:
    root_password.lock_root_password(system.paths, system.family, system.shadow, run)


def _delete_user(system: System, target: str) -> None:
    line = next(
        (
            fields
            for fields in map(_fields, text_of(system.paths.under("/etc/passwd")).splitlines())
            if fields[0] == target and len(fields) > 5
        ),
        None,
    )
    if line is None:
        return
    if int(line[2]) < min(_SYSTEM_UIDS, system.family.uid_minimum):
        raise NotDone(f"{target} is a system user (uid {line[2]}), it stays")
    has_own_home = not _is_on_network(str(system.paths.under(line[5])))
    words = system.family.delete_user if has_own_home else system.family.keep_home
    argv = [word.replace("{name}", target) for word in words]
    if not boot_marks.is_running_system(system.paths):
        argv[1:1] = ["-R", str(system.paths.root)]
    run(argv, deadline_s=_TOOL_LIMIT_S)
    if not has_own_home:
        raise NotDone(f"{line[5]} is on a network file system, it stays")


def _fields(line: str) -> list[str]:
    return line.split(":")


def _take_sudo_right(system: System, target: str) -> None:
    file, _, name = target.rpartition(": ")
    path = Path(file)
    lines = text_of(path).splitlines()
    kept = [line for line in lines if line.split()[:1] != [name]]
    if not any(line.strip() for line in kept):
        path.unlink(missing_ok=True)
    elif kept != lines:
        write_atomic(path, "".join(line + "\n" for line in kept).encode(), mode=0o440)


def _take_sshd_lines(system: System, target: str) -> None:
    _rewrite(Path(target), without_block(text_of(Path(target))))


def _take_hosts_line(system: System, target: str) -> None:
    text = text_of(Path(target))
    kept = [line for line in text.splitlines() if not line.endswith(HOSTS_MARK)]
    host_name.write_text(Path(target), "".join(line + "\n" for line in kept))


def _rewrite(file: Path, text: str) -> None:
    mode = stat.S_IMODE(file.stat().st_mode)
    write_atomic(file, text.encode("utf-8", "surrogateescape"), mode=mode)


def _run_words(system: System, target: str) -> None:
    run(target.split(), deadline_s=_TOOL_LIMIT_S)


def _keep(system: System, target: str) -> None:
    """Said in the plan, and nothing is done."""


def _refuse_network(system: System, target: str) -> None:
    if _is_on_network(target):
        raise NotDone(f"{target} is on a network file system, it stays")


def _is_on_network(target: str) -> bool:
    real = os.path.realpath(target)
    mounts = network_mounts(Paths("/"))
    return any(real == mount or real.startswith(mount.rstrip("/") + "/") for mount in mounts)


_ACTIONS: dict[str, Callable[[System, str], None]] = {
    plan.MARK: _mark,
    plan.STOP: _stop,
    plan.REMOVE: _remove,
    plan.EMPTY: _empty,
    plan.TRUNCATE: _truncate,
    plan.NAME: _set_name,
    plan.PASSWORD: _lock_password,
    plan.USER: _delete_user,
    plan.SUDOERS: _take_sudo_right,
    plan.SSHD: _take_sshd_lines,
    plan.HOSTS: _take_hosts_line,
    plan.RUN: _run_words,
    plan.KEEP: _keep,
}
