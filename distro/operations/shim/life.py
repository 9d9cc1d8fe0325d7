"""An operation from its plan to its exit record, in the order in which things happen.

Killed at any step: before `started.json` nothing of the command has run, and another shim may begin
again. Between it and `exit.json` the lock is free and the operation counts as lost; it is never run
twice. After it the result stands.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` wraps it in enums: 0.8 MiB in every shim
import os
import select
import sys
import time

from waagent.distro import kernel_files, processes
from waagent.distro.cgroups import groups, oom
from waagent.distro.cgroups.groups import Group
from waagent.distro.clock import Deadline
from waagent.distro.operations.ceilings import limit_cpu
from waagent.distro.operations.shim import plan as shim_plan
from waagent.distro.operations.shim.command import Command
from waagent.distro.operations.shim.output import Output
from waagent.distro.operations.shim.plan import Plan
from waagent.distro.process_title import set_title

TURN_S = 2.0  # a machine that stood still is noticed to this precision
OOM_SHIM = -500
_KILL_TURN_S, _STUCK_TURN_S, _KILL_S = 0.02, 1.0, 1.0
_AFTER_EXIT_S = 1.0
_RECORD_PAUSE_S = 1.0
_ALONE_S = 0.5
# a shutdown ends the command; we record how
_IGNORED = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
_DRAINERS = ("/bin/cat", "/usr/bin/cat")


def live(path: str) -> None:
    """Run the operation in ``path``, whose plan is on stdin; leave silently when another shim did
    or does.
    """
    plan = shim_plan.read_plan(0)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    lock = shim_plan.take_lock(folder)
    if (
        lock is None
        or shim_plan.has_record(folder, shim_plan.STARTED)
        or shim_plan.has_record(folder, shim_plan.EXIT)
    ):
        return
    if os.fork():
        os._exit(0)  # the lock goes on in the child, so whoever waited for us sees it held
    os.setsid()
    set_title(plan.values.get("title", "shim"))
    _leave_stdin()
    place, fence = settle(plan)
    for number in _IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    waker = _wake_at_child_exit()
    began = time.monotonic()
    readers, writers = zip(os.pipe(), os.pipe())
    command = Command(plan, place, writers)
    if not command.groups:
        fence = _without_groups(plan, fence)
    if command.trouble is not None:
        command.close_gate()
        record_exit(folder, {"error": command.trouble, "exit_code": None, "signal": None})
        return
    output = Output(_open_output(folder), readers)
    if command.denials is not None:
        output.watch(command.denials.listener, command.denials.answer)
    record_start(folder, plan, command, f"{fence}; {command.fence}" if command.fence else fence)
    command.open_gate()
    killed = tend(command, output, Deadline(float(plan.values["deadline_s"]), began), waker)
    for group in command.groups:  # what it leaves behind is a customer's daemon like any other
        groups.limit(group, plan.number("memory_mib"), plan.number("left_pids"), None)
    drain_rest(output)
    finish(folder, command, output, killed, time.monotonic() - began)
    _say_end()
    answer_on(command, output)
    become_drainer(output)


def _leave_stdin() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir("/")


def _say_end() -> None:
    """Let go of stdout: whoever started us may hold the other end of it as a pipe, and looks at the
    exit record when it ends.
    """
    nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(nothing, 1)
    os.close(nothing)


def _open_output(folder: int) -> int:
    try:
        return os.open(
            shim_plan.OUTPUT,
            os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
            dir_fd=folder,
        )
    except OSError:
        # a full disk costs what is kept, not the operation
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def settle(plan: Plan) -> tuple[list[Group], str]:
    """Leave the agent's cgroups for the operation's own; the command's groups, and what is in force
    in words.
    """
    shim_groups, command_groups = plan.shim_groups, plan.command_groups
    scope = plan.values.get("scope", "")
    own = groups.of_self()
    if scope and any(os.path.basename(folder) == scope for _, _, folder in own):
        shim_groups, command_groups = _leaves_in_scope(own, scope, plan)
    taken = {(version, controllers) for version, controllers, _ in shim_groups}
    for version, controllers, folder in own:
        base = groups.above_our_leaves(folder)
        if base != folder and (version, controllers) not in taken:
            kernel_files.try_write(base + "/cgroup.procs", "0")
    try:
        groups.join(shim_groups)
    except OSError as error:
        return [], f"no cgroup ({error.strerror})"
    kernel_files.try_write("/proc/self/oom_score_adj", str(OOM_SHIM))
    percent = plan.number("cpu_percent")
    if percent is not None:
        limit_cpu(command_groups, percent)
    return command_groups, groups.describe(command_groups) if command_groups else "no cgroup"


def _leaves_in_scope(own: list[Group], scope: str, plan: Plan) -> tuple[list[Group], list[Group]]:
    """systemd delegated the scope to us: `shim` and `command` below it, the first joined before
    controllers go down (v2).
    """
    inside = [group for group in own if os.path.basename(group[2]) == scope]
    try:
        shim_groups = [
            groups.make((version, controllers, folder), "shim")
            for version, controllers, folder in inside
        ]
        groups.join(shim_groups)
        _wait_alone(inside)
        command_groups = [groups.make(group, "command") for group in inside]
    except OSError:
        return plan.shim_groups, plan.command_groups
    for group in command_groups:
        groups.limit(
            group, plan.number("memory_mib"), plan.number("pids"), plan.number("cpu_weight")
        )
    return shim_groups, command_groups


def _wait_alone(place: list[Group]) -> None:
    """Until our first process, which left, is out of the scope too: v2 hands no controller down
    from a group with processes.
    """
    until = time.monotonic() + _ALONE_S
    while time.monotonic() < until and any(
        (kernel_files.read(folder + "/cgroup.procs") or "").strip() for _, _, folder in place
    ):
        time.sleep(0.001)


def _without_groups(plan: Plan, fence: str) -> str:
    """Adopt what the command's tree orphans, so that it can be found: only here, since daemons look
    at their parent.
    """
    if plan.values.get("subreaper") != "1":
        return fence + ", session"
    from waagent.distro.fences import prctl  # ctypes, 0.4 MiB: only where no cgroup is

    return fence + (", session and subreaper" if prctl.set_child_subreaper() else ", session")


def _wake_at_child_exit() -> int:
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    _signal.signal(_signal.SIGCHLD, lambda number, frame: None)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def record_start(folder: int, plan: Plan, command: Command, fence: str) -> None:
    """Write `started.json`; when that cannot be done, nothing is run."""
    fields: dict[str, object] = {
        "schema": 1,
        "pid": os.getpid(),
        "start_ticks": processes.start_ticks(os.getpid()),
        "boot_id": plan.values.get("boot_id", ""),
        "command_pid": command.pid,
        "command_start_ticks": command.start_ticks,
        "at": time.monotonic(),
        "time": time.time(),
        "fence": fence,
        "groups": command.groups,
    }
    try:
        shim_plan.write_record(folder, shim_plan.STARTED, fields)
    except OSError as error:
        command.close_gate()
        sys.exit(
            f"operation not started: {shim_plan.STARTED}: {error.strerror}: none needed, it is"
            " tried again"
        )


def tend(command: Command, output: Output, deadline: Deadline, waker: int) -> bool:
    """Drain and wait until the command has ended; at the deadline kill its whole tree. Whether that
    was done.
    """
    killed_at: float | None = None
    output.poll.register(waker, select.POLLIN)
    while not command.has_ended():
        now = time.monotonic()
        if killed_at is None and deadline.has_passed(now) and not command.has_ended():
            killed_at = now
        if killed_at is not None:
            command.kill()
            output.turn(_KILL_TURN_S if now - killed_at < _KILL_S else _STUCK_TURN_S)
        else:
            output.turn(deadline.pause_s(now, TURN_S))
        _clear(waker)
    output.poll.unregister(waker)
    if killed_at is not None:
        command.kill_rest(_KILL_S)
    return killed_at is not None


def _clear(waker: int) -> None:
    try:
        while os.read(waker, 64):
            continue
    except BlockingIOError:
        return


def drain_rest(output: Output) -> None:
    """Take what the command wrote last: until both pipes end, at most a second."""
    until = time.monotonic() + _AFTER_EXIT_S
    while output.held and time.monotonic() < until:
        output.turn(max(0.0, until - time.monotonic()))


def finish(folder: int, command: Command, output: Output, killed: bool, elapsed_s: float) -> None:
    """Write `exit.json`; on a full disk as often as it takes, draining meanwhile."""
    status = command.status or 0
    signal_number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    fields: dict[str, object] = {
        "error": command.exec_error(),
        "exit_code": os.WEXITSTATUS(status) if signal_number is None else None,
        "signal": signal_number,
        "timed_out": killed and signal_number == _signal.SIGKILL,
        "oom_kills": oom.oom_kills(command.groups),
        "elapsed_s": elapsed_s, "at": time.monotonic(), "time": time.time(),
        "stdout_bytes": output.totals[0], "stderr_bytes": output.totals[1],
        "held": bool(output.held),
        "denied": denied(command),
    }  # fmt: skip
    record_exit(folder, fields, output)


def denied(command: Command) -> list[str]:
    """What its profile kept it from, as far as anybody was asked."""
    said = command.denials.said if command.denials is not None else {}
    return [f"{words} ({count} times)" if count > 1 else words for words, count in said.items()]


def record_exit(folder: int, fields: dict[str, object], output: Output | None = None) -> None:
    """Write `exit.json`, again and again until it stands."""
    while True:
        try:
            shim_plan.write_record(folder, shim_plan.EXIT, {"schema": 1, **fields})
            shim_plan.give_up_reserve(folder)
            return
        except FileNotFoundError:
            return  # the folder was removed: nobody wants to know
        except OSError:
            until = time.monotonic() + _RECORD_PAUSE_S
            while time.monotonic() < until:
                if output is None or not output.turn(until - time.monotonic()):
                    time.sleep(max(0.0, until - time.monotonic()))


def answer_on(command: Command, output: Output) -> None:
    """What a strict command left behind asks us about its system calls, as long as it lives."""
    while command.denials is not None and output.is_watched(command.denials.listener):
        output.turn(TURN_S * 30)
        command.has_ended()


def become_drainer(output: Output) -> None:
    """Somebody still holds a pipe: read on as the smallest program there is, one a pipe, in place
    of this one.
    """
    held = output.held
    program = next((path for path in _DRAINERS if os.access(path, os.X_OK)), None)
    while held and program is None:
        output.turn(60.0)
        held = output.held
    if not held or program is None:
        return
    # survives execve: children are reaped by the kernel
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    os.nice(19)
    for reader in held[1:]:
        if os.fork() == 0:
            _drain(program, reader)
    _drain(program, held[0])


def _drain(program: str, reader: int) -> None:
    os.set_blocking(reader, True)
    os.dup2(reader, 0)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.execve(program, ["cat"], {})
