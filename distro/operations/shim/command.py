"""The command itself: started behind a gate, watched, killed with all that belongs to it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` wraps it in enums: 0.8 MiB in every shim
import os
import time

from waagent.distro import kernel_files, processes
from waagent.distro.cgroups import groups
from waagent.distro.operations.shim.plan import Plan

SHELL = "/bin/sh"
_NOFILE = "1024:524288"  # soft and hard, what a login or a unit gets
_READY, _NO_GROUP, _FAILED = b"r", b"g", b"f"
_KILL_PAUSE_S = 0.005


class Command:
    """The child that becomes the command. Invariant: it executes nothing before `open_gate`, and
    nothing when we die first.
    """

    def __init__(self, plan: Plan, place: list[groups.Group], writers: tuple[int, int]) -> None:
        self.groups = place
        self.status: int | None = None
        gate, self._gate = os.pipe()
        self._report, report = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(plan, place, writers, gate, report)
        for descriptor in (gate, report, *writers):
            os.close(descriptor)
        self.trouble = self._listen()
        self.start_ticks = processes.start_ticks(self.pid) or 0

    def _listen(self) -> str | None:
        """What the child says before the gate: nothing, that it has no cgroup, or why it cannot
        start.
        """
        said = b""
        while not said.endswith((_READY, b"\n")):
            part = os.read(self._report, 512)
            if not part:
                return "the child vanished before it could start"
            said += part
        if said.startswith(_NO_GROUP):
            self.groups = []
        if said.startswith(_FAILED):
            return said[1:].decode("utf-8", "replace").strip()
        return None

    def open_gate(self) -> None:
        """Let it execute."""
        try:
            os.write(self._gate, b"g")
        except BrokenPipeError:
            pass  # killed behind its gate: an end like any other, which `has_ended` sees
        os.close(self._gate)

    def close_gate(self) -> None:
        """Let it end without having executed anything."""
        os.close(self._gate)
        os.waitpid(self.pid, 0)

    def exec_error(self) -> str | None:
        """Why /bin/sh could not be executed; None when it was."""
        said = os.read(self._report, 512)
        return said[1:].decode("utf-8", "replace").strip() if said.startswith(_FAILED) else None

    def has_ended(self) -> bool:
        """Reap; whether the command itself has ended (what it left behind does not count)."""
        while self.status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.pid:
                self.status = status
        return self.status is not None

    def tree(self) -> list[int]:
        """All that lives of it."""
        if self.groups:
            return groups.pids(self.groups)
        found = {*processes.tree_of(os.getpid()), *processes.session_of(self.pid, self.start_ticks)}
        return [pid for pid in found if pid != os.getpid()]

    def kill(self) -> None:
        """SIGKILL to the command and all that belongs to it."""
        if self.groups:
            groups.kill(self.groups)
        else:
            processes.signal_all(
                processes.session_of(self.pid, self.start_ticks), processes.SIGSTOP
            )
            processes.kill_tree(os.getpid(), with_root=False, deadline_s=0.3)
            processes.signal_all(
                processes.session_of(self.pid, self.start_ticks), processes.SIGKILL
            )

    def kill_rest(self, deadline_s: float) -> None:
        """Go on until nothing of it lives, or the deadline: something hangs in the kernel."""
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            self.has_ended()
            if not [pid for pid in self.tree() if processes.is_alive(pid)]:
                break
            self.kill()
            time.sleep(_KILL_PAUSE_S)


def _become(
    plan: Plan, place: list[groups.Group], writers: tuple[int, int], gate: int, report: int
) -> None:
    """The child's side; never returns."""
    try:
        os.setsid()
        try:
            groups.join(place)
        except OSError:
            os.write(report, _NO_GROUP)
        _settle(plan, writers)
        os.write(report, _READY)
        if os.read(gate, 1) != b"g":
            os._exit(0)  # the shim died before it had written `started`: another one will run this
        os.execve(SHELL, [SHELL, "-c", plan.values["command"]], plan.environment)
    except BaseException as error:  # noqa: B036 - a child must not return into the shim's code, whatever happens
        text = f"{type(error).__name__}: {error}".replace("\n", " ")
        os.write(report, _FAILED + text.encode("utf-8", "replace")[:400] + b"\n")
    finally:
        os._exit(127)


def _settle(plan: Plan, writers: tuple[int, int]) -> None:
    """All that a command finds set: streams, signals, limits, umask, folder."""
    kernel_files.try_write("/proc/self/oom_score_adj", plan.values.get("oom_score_adj", "0"))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(writers[0], 1)
    os.dup2(writers[1], 2)
    _reset_signals()
    _reset_limits(plan.values.get("nofile", _NOFILE))
    os.umask(int(plan.values.get("umask", "022"), 8))
    os.chdir(plan.values["cwd"])


def _reset_signals() -> None:
    for number in _signal.valid_signals():
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def _reset_limits(nofile: str) -> None:
    import resource  # only in the child, which is about to be replaced

    soft, hard = map(int, nofile.split(":"))
    endless = resource.RLIM_INFINITY
    wanted = (
        (resource.RLIMIT_NOFILE, (soft, hard)),
        (resource.RLIMIT_CORE, (0, endless)),
        (resource.RLIMIT_DATA, (endless, endless)),
        (resource.RLIMIT_AS, (endless, endless)),
    )
    for which, (soft, hard) in wanted:
        try:
            resource.setrlimit(which, (soft, hard))
        # raising it needs SYS_RESOURCE: the ceiling that we have stays
        except (OSError, ValueError):
            ceiling = resource.getrlimit(which)[1]
            resource.setrlimit(which, (min(soft, ceiling) if soft != endless else ceiling, ceiling))
