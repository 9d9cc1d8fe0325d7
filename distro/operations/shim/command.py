"""The command itself: started behind a gate, watched, killed with all that belongs to it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # `signal` wraps it in enums: 0.8 MiB in every shim
import os
import time

from waagent.distro import kernel_files, processes
from waagent.distro.cgroups import groups
from waagent.distro.operations.shim import sandbox
from waagent.distro.operations.shim.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from waagent.distro.operations.shim.denials import Denials

    Pair = tuple[_socket.socket, _socket.socket]
SHELL = "/bin/sh"
_NOFILE = "1024:524288"  # soft and hard, what a login or a unit gets
_READY, _NO_GROUP, _FAILED = b"r", b"g", b"f"
"""What the child says, a line each: READY and what fences it; that it has no cgroup; why not."""
_KILL_PAUSE_S = 0.005


class Command:
    """The child that becomes the command. Invariant: it executes nothing before `open_gate`, and
    nothing when we die first.
    """

    def __init__(self, plan: Plan, place: list[groups.Group], writers: tuple[int, int]) -> None:
        self.groups = place
        self.status: int | None = None
        self.fence = ""
        """What the profile keeps it from, in words."""
        self.denials: Denials | None = None
        """Of a strict command: to be answered whenever its listener can be read."""
        gate, self._gate = os.pipe()
        self._report, report = os.pipe()
        listening = _pair() if plan.values.get("profile") == sandbox.STRICT else None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(plan, place, writers, gate, report, listening)
        for descriptor in (gate, report, *writers):
            os.close(descriptor)
        self.trouble = self._listen()
        if listening is not None:
            self.denials = None if self.trouble else _listener(listening, plan)
        self.start_ticks = processes.start_ticks(self.pid) or 0

    def _listen(self) -> str | None:
        """What the child says before the gate: nothing, that it has no cgroup, or why it cannot
        start.
        """
        said, ended = b"", False
        while not ended:
            part = os.read(self._report, 512)
            if not part:
                return "the child vanished before it could start"
            said += part
            ended = said.endswith(b"\n") and said.splitlines()[-1][:1] in (_READY, _FAILED)
        lines = said.splitlines()
        if lines[0] == _NO_GROUP:
            self.groups = []
        word = lines[-1][1:].decode("utf-8", "replace").strip()
        if lines[-1].startswith(_FAILED):
            return word
        self.fence = word
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
    plan: Plan,
    place: list[groups.Group],
    writers: tuple[int, int],
    gate: int,
    report: int,
    listening: Pair | None,
) -> None:
    """The child's side; never returns."""
    try:
        os.setsid()
        try:
            groups.join(place)
        except OSError:
            os.write(report, _NO_GROUP + b"\n")
        _settle(plan, writers)
        fence = sandbox.enter(plan, lambda listener: _hand_over(listening, listener))
        os.write(report, _READY + fence.encode("utf-8", "replace")[:400] + b"\n")
        if os.read(gate, 1) != b"g":
            os._exit(0)  # the shim died before it had written `started`: another one will run this
        os.execve(SHELL, [SHELL, "-c", plan.values["command"]], plan.environment)
    except BaseException as error:  # noqa: B036 - a child must not return into the shim's code, whatever happens
        text = f"{type(error).__name__}: {error}".replace("\n", " ")
        os.write(report, _FAILED + text.encode("utf-8", "replace")[:400] + b"\n")
    finally:
        os._exit(127)


def _pair() -> Pair:
    import _socket  # only strict commands need it

    return _socket.socketpair()


def _hand_over(listening: Pair | None, listener: int) -> None:
    import _socket

    assert listening is not None
    ancillary = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, "little"))
    listening[1].sendmsg([b"l"], [ancillary])
    for end in listening:
        end.close()


def _listener(listening: Pair, plan: Plan) -> Denials | None:
    """Who answers for the sandbox; None where the kernel asks nobody."""
    import _socket

    listening[1].close()
    _, ancillary, _, _ = listening[0].recvmsg(1, _socket.CMSG_SPACE(4))
    listening[0].close()
    if not ancillary:
        return None
    from waagent.distro.operations.shim.denials import Denials  # only strict commands need it

    return Denials(int.from_bytes(ancillary[0][2][:4], "little"), plan)


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
