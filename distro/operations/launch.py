"""The runner's side of an operation: plan it and start its shim.

The folder ``<lib>/operations/<id>`` belongs to one operation. The shim's title names the handler: a
handler's `pkill -f <its name>` finds the shim, which takes no notice of SIGTERM.
`planned.json` is written here, the other records by the shim.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.distro import files, processes, programs
from waagent.distro.cgroups.groups import Group
from waagent.distro.cgroups.trees import Limits, Tree
from waagent.distro.operations.records import PLANNED
from waagent.distro.operations.shim import plan as shim_plan
from waagent.protocol.base.errors import ExplainedError
from waagent.protocol.base.records import Record

LOG = "shim.log"
DEFAULT_LIMITS = Limits(memory_mib=None, pids=4096, cpu_weight=20)
LAUNCH_S = 15.0  # systemd-run on a D-Bus that does not answer
_KILL_S = 2.0
_SHIM_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


class OperationError(ExplainedError):
    """An operation could not be planned or started: what, where, remedy. Nothing of the handler has
    run.
    """


class Place(Record):
    """The cgroups of one operation; empty where there are none."""

    shim: tuple[Group, ...] = ()
    command: tuple[Group, ...] = ()


class Sandbox(Record):
    """What fences the command. ``profile``: `default`, `strict`, or empty for none at all."""

    profile: str = ""
    own_folders: tuple[str, ...] = ()
    """Of `default`: folders of the agent that hold what is hidden."""
    hidden: tuple[str, ...] = ()
    agent_pids: tuple[int, ...] = ()
    """Of `default`: who may not be traced."""
    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    """Of `strict`: what stays visible inside hidden folders."""
    capabilities: tuple[str, ...] = ()
    network: bool = True


class Spec(Record):
    """All that a shim must know, and what the runner wants to find again after a restart."""

    command: str
    """The text for `/bin/sh -c`."""
    cwd: str
    environment: Mapping[str, str]
    """The whole of it, nothing is added."""
    deadline_s: float
    handler: str
    version: str
    operation: str
    extension: str = ""
    sequence: int | None = None
    goal_state_id: str = ""
    boot_id: str = ""
    """Empty: this boot."""
    log_file: str = ""
    umask: int = 0o022
    limits: Limits = DEFAULT_LIMITS
    left_pids: int | None = None
    """How many processes it may leave behind; None: as many as the machine takes. Its memory
    ceiling stays, its CPU weight becomes everybody's.
    """
    nofile: tuple[int, int] = (1024, 524288)
    """Soft and hard RLIMIT_NOFILE, those that init gave the service."""
    cpu_percent: int | None = None
    """Of one processor; None: all there is."""
    place: Place = Place()
    systemd: bool = False
    """Start the shim in a transient scope of the handler's slice (PID 1 is systemd); `place` serves
    when that fails.
    """
    sandbox: Sandbox = Sandbox()
    subreaper: bool = True
    """May the shim adopt orphans where it has no cgroup."""


def make_place(tree: Tree, handler: str, operation: str, limits: Limits = DEFAULT_LIMITS) -> Place:
    """The cgroups ``<handler>/<operation>/{shim,command}``, made now; empty groups where the tree
    has none.
    """
    weight = limits.cpu_weight if limits.cpu_weight is not None else 100
    shim = tree.leaf(f"{handler}/{operation}/shim", Limits(cpu_weight=weight))
    command = tree.leaf(f"{handler}/{operation}/command", limits._replace(cpu_weight=weight))
    if len(shim.groups) != len(command.groups):
        return Place()
    return Place(tuple(shim.groups), tuple(command.groups))


def plan_operation(folder: Path, spec: Spec) -> None:
    """Write the `planned` record, last of all; before it the operation does not exist. Raises
    OSError (disk full …).
    """
    if "\0" in spec.command + spec.cwd + "".join(
        f"{name}{value}" for name, value in spec.environment.items()
    ):
        raise OperationError(
            "a command or its environment holds a NUL",
            spec.handler,
            "none, the goal state is wrong",
        )
    planned = {
        **spec._asdict(),
        "place": spec.place._asdict(),
        "sandbox": spec.sandbox._asdict(),
        "boot_id": spec.boot_id or processes.boot_id(),
    }
    files.make_folder(folder)
    for name, size_bytes in (
        (shim_plan.LOCK, 0),
        (shim_plan.OUTPUT, 0),
        (shim_plan.RESERVE, shim_plan.RESERVE_BYTES),
    ):
        descriptor = os.open(
            folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            if size_bytes:
                os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
    files.write_json(
        folder / PLANNED, {"schema": 1, "time": time.time(), "at": time.monotonic(), **planned}
    )


def start_shim(folder: Path, *, python: str) -> None:
    """Start a shim for what is planned in ``folder``; returns when it runs detached (tens
    of milliseconds).

    Harmless for an operation that runs or ran: the second shim leaves. A scope that systemd does
    not make is done without. Raises OperationError when no shim could be started; then nothing has
    run.
    """
    planned = read_plan(folder)
    error = not_started(folder, "nothing was tried")
    for through_systemd in (True, False) if planned["systemd"] else (False,):
        try:
            program = spawn_shim(folder, planned, python=python, through_systemd=through_systemd)
        except OperationError as problem:
            error = problem
            continue
        status = program.wait(LAUNCH_S)
        if status == 0:
            return
        trouble = f"status {status}" if status is not None else f"no answer for {LAUNCH_S:g} s"
        error = not_started(folder, trouble)
        program.kill()  # harmless: a shim that did get through has the lock
        program.wait(_KILL_S)
    raise error


def read_plan(folder: Path) -> Mapping[str, Any]:
    """What was planned in ``folder``. Raises OperationError when nothing was."""
    planned = files.read_state_json(folder / PLANNED)
    if not isinstance(planned, dict):
        raise OperationError("operation has no plan", str(folder), "plan it")
    return planned


def spawn_shim(
    folder: Path,
    planned: Mapping[str, Any],
    *,
    python: str,
    through_systemd: bool,
    until_end: int | None = None,
) -> programs.Program:
    """Begin to start a shim, in a systemd scope or not; its first process ends with 0 when the shim
    runs detached from us.

    ``until_end``: the writing end of a pipe, which the shim alone holds until its exit record is
    there, or it has died. Raises OperationError when there is no such program.
    """
    plan = _plan_file(folder)
    log = _log_file(folder)
    argv = shim_argv(folder, python)
    if through_systemd:
        argv = [*scope_argv(planned["handler"], planned["operation"], folder.name), *argv]
    try:
        os.write(plan, shim_plan.to_bytes(crossing(planned, folder.name)))
        os.lseek(plan, 0, os.SEEK_SET)
        return programs.start(
            argv, _SHIM_ENVIRONMENT, plan, log if until_end is None else until_end, log
        )
    except OSError as error:
        raise not_started(folder, str(error.strerror)) from error
    finally:
        os.close(plan)
        os.close(log)


def not_started(folder: Path, trouble: str) -> OperationError:
    """The error of a shim that did not start."""
    return OperationError(
        f"shim could not be started ({trouble})",
        str(folder / LOG),
        "none needed, it is tried again",
    )


def _plan_file(folder: Path) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("plan")
    return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)


def _log_file(folder: Path) -> int:
    try:
        return os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError:
        # a full disk does not stop an operation
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def scope_name(operation: str, name: str) -> str:
    """The transient unit of one operation."""
    return f"{operation}_{name}.scope"


def scope_argv(handler: str, operation: str, name: str) -> list[str]:
    """What puts a program into a transient, delegated scope of the handler's slice; no version in
    it: drop-ins say it so.
    """
    slice_name = f"azure-vmextensions-{handler.replace('-', '_')}.slice"
    return [
        "systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        f"--unit={scope_name(operation, name)}",
        f"--slice={slice_name}",
        "--property=Delegate=yes",
        "--property=TasksMax=infinity",
        "--property=CPUAccounting=yes",
        "--property=MemoryAccounting=yes",
        "--",
    ]


def shim_argv(folder: Path, python: str) -> list[str]:
    """The shim's command line: it names the operation's folder and nothing else."""
    return [
        python,
        "-I",
        "-S",
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim/main.py"),
        str(folder),
    ]


def crossing(planned: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """The plan as the shim reads it: what `planned.json` says, flat."""
    limits = Limits(*planned["limits"])
    values = [
        ("command", planned["command"]),
        ("cwd", planned["cwd"]),
        ("deadline_s", repr(float(planned["deadline_s"]))),
        ("umask", f"{planned['umask']:03o}"),
        ("boot_id", planned["boot_id"]),
        ("title", f"shim {planned['handler']} {planned['operation']}"),
        ("subreaper", "1" if planned["subreaper"] else "0"),
        ("scope", scope_name(planned["operation"], name) if planned["systemd"] else ""),
        ("memory_mib", _text(limits.memory_mib)),
        ("pids", _text(limits.pids)),
        ("cpu_weight", _text(limits.cpu_weight)),
        ("left_pids", _text(planned.get("left_pids"))),
        ("nofile", ":".join(map(str, planned.get("nofile", Spec._field_defaults["nofile"])))),
        ("cpu_percent", _text(planned.get("cpu_percent"))),
    ]
    values += _sandbox_values(planned.get("sandbox", {}))
    values += [("environment", f"{key}={value}") for key, value in planned["environment"].items()]
    for key in ("shim", "command"):
        for version, controllers, folder in planned["place"][key]:
            values.append((f"{key}_group", f"{version}|{','.join(controllers)}|{folder}"))
    return values


def _sandbox_values(sandbox: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = [
        ("profile", str(sandbox.get("profile", ""))),
        ("network", "1" if sandbox.get("network", True) else "0"),
    ]
    for key, field in (
        ("own_folder", "own_folders"),
        ("hidden", "hidden"),
        ("agent_pid", "agent_pids"),
        ("writable", "writable"),
        ("readable", "readable"),
        ("capability", "capabilities"),
    ):
        values += [(key, str(value)) for value in sandbox.get(field, ())]
    return values


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
