"""The one way to run a tool: argv, deadline, no stdin, capped output, and nothing of it left when
it had to be killed.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from waagent.distro import processes, programs
from waagent.distro.clock import Deadline
from waagent.distro.fences import prctl
from waagent.distro.programs import NULL, PIPE, Program
from waagent.protocol.base.errors import ExplainedError
from waagent.protocol.base.records import Record

TICK_S = 1.0
_PR_GET_CHILD_SUBREAPER = 37
_AFTER_EXIT_S = 0.2  # output that is still in the pipe; a daemon that holds it is not waited for
_KILL_S = 2.0
_CHUNK_BYTES = 64 * 1024
_QUOTED = 200
_NOT_FOR_TOOLS = (
    "PYTHON",
    "LD_",
    "LC_",
    "LANG",
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "LISTEN_",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# a fact of this process, not of a caller: children that tools left to us, to be reaped when they
# end
_adopted: set[int] = set()
_JOIN = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done 2>/dev/null; shift; exec "$@"'


class ToolError(ExplainedError):
    """A tool did not do what it was asked: what, where, remedy; ``finished`` when it ran."""

    def __init__(
        self, what: str, where: str, remedy: str, finished: Finished | None = None
    ) -> None:
        super().__init__(what, where, remedy)
        self.finished = finished


class ToolNotFound(ToolError):
    """There is no such program, or it may not be executed."""


class ToolTimedOut(ToolError):
    """The deadline passed; the tool and all it started were killed."""


class Finished(Record):
    """How a tool ended. ``status`` is negative for a signal; streams hold the first bytes, up to
    the limit.
    """

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool
    seconds: float


def run(
    argv: Sequence[str],
    *,
    deadline_s: float,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    output_limit_bytes: int = 256 * 1024,
    check: bool = True,
    tick: Callable[[], None] | None = None,
    place: Iterable[Path | str] = (),
) -> Finished:
    """Run a tool to its end, or to the deadline; ``tick`` is called about every second meanwhile.

    ``place``: cgroup.procs files of the group to run in. ``env`` replaces the environment (LC_ALL=C
    is always set). A daemon that the tool leaves behind lives on, unless the deadline passed: then
    everything that descends from the tool is killed, setsid or not. Raises ToolNotFound; with
    ``check`` also ToolTimedOut, and ToolError for a status other than 0.
    """
    environment = tool_environment(env)
    program = _find(argv[0], environment.get("PATH", _DEFAULT_PATH))
    if program is None:
        raise ToolNotFound("tool is missing", argv[0], "install the package that has it")
    places = [os.fspath(file) for file in place]
    _reap_adopted()
    was_subreaper = is_child_subreaper()
    prctl.set_child_subreaper()
    started = time.monotonic()
    strangers = set(processes.children_of(os.getpid())) | _members(places)
    try:
        process = _start([program, *argv[1:]], places, environment, stdin is not None)
        tool = _Tool(process, stdin or b"", output_limit_bytes, places, strangers)
        timed_out = tool.wait(Deadline(deadline_s, started), tick)
    finally:
        prctl.set_child_subreaper(was_subreaper)
        _reap_adopted()
    finished = Finished(
        tuple(argv),
        tool.process.status or 0,
        bytes(tool.kept[0]),
        bytes(tool.kept[1]),
        timed_out,
        time.monotonic() - started,
    )
    return _checked(finished, deadline_s) if check else finished


def _find(name: str, path: str) -> str | None:
    """The file that ``name`` runs (`shutil.which` without shutil, which loads lzma and bz2 into
    every worker).
    """
    places = (
        [name] if "/" in name else [os.path.join(folder or ".", name) for folder in path.split(":")]
    )
    return next(
        (place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None
    )


def tool_environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a tool gets: ``given``, or ours without what is meant for us alone; always LC_ALL=C."""
    source = os.environ if given is None else given
    kept = {
        name: value
        for name, value in source.items()
        if given is not None or not name.startswith(_NOT_FOR_TOOLS)
    }
    kept.setdefault("PATH", _DEFAULT_PATH)
    return {**kept, "LC_ALL": "C"}


def _start(argv: list[str], places: list[str], environment: dict[str, str], fed: bool) -> Program:
    # a shell joins the group: what is done between fork and exec must not be Python
    command = ["/bin/sh", "-c", _JOIN, "sh", *places, "--", *argv] if places else argv
    try:
        return programs.start(command, environment, PIPE if fed else NULL, PIPE, PIPE)
    except OSError as error:
        raise ToolNotFound(
            f"tool cannot be started ({error.strerror})",
            argv[0],
            "look at its mode and its interpreter",
        ) from error


def _checked(finished: Finished, deadline_s: float) -> Finished:
    name = os.path.basename(finished.argv[0])
    said = finished.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
    where = repr(said[-1][:_QUOTED]) if said else " ".join(finished.argv[:2])
    if finished.timed_out:
        raise ToolTimedOut(
            f"{name} took longer than {deadline_s:g} s and was killed",
            where,
            "look at what it waits for",
            finished,
        )
    if finished.status:
        ending = (
            f"status {finished.status}" if finished.status > 0 else f"signal {-finished.status}"
        )
        raise ToolError(
            f"{name} ended with {ending}", where, "run it by hand to see more", finished
        )
    return finished


class _Tool:
    """A running tool and its pipes. Invariant: `kept` never exceeds the limit, and no call waits
    longer than a tick.
    """

    def __init__(
        self,
        process: Program,
        stdin: bytes,
        limit_bytes: int,
        places: list[str],
        strangers: set[int],
    ) -> None:
        self.process = process
        self.kept = (bytearray(), bytearray())
        self._limit_bytes = limit_bytes
        self._to_write = memoryview(stdin)
        self._places = places
        self._strangers = strangers  # who was here before it: never touched
        stdin_end, stdout, stderr = process.streams
        self._streams = {stdout: self.kept[0], stderr: self.kept[1]}
        self._poll = select.poll()
        for descriptor in self._streams:
            self._poll.register(descriptor, select.POLLIN)
        if stdin_end >= 0:
            self._poll.register(stdin_end, select.POLLOUT)
        self._pidfd = processes.open_pidfd(process.pid)
        if self._pidfd is not None:
            self._poll.register(self._pidfd, select.POLLIN)

    def wait(self, deadline: Deadline, tick: Callable[[], None] | None) -> bool:
        """Until it ended; whether it had to be killed. Closes what was opened."""
        next_tick = time.monotonic() + TICK_S
        at_most = TICK_S if self._pidfd is not None else 0.05
        try:
            while self.process.poll() is None:
                now = time.monotonic()
                if deadline.has_passed(now) and self.process.poll() is None:
                    self._kill_all()
                    return self.process.status == -signal.SIGKILL
                if tick is not None and now >= next_tick:
                    tick()
                    next_tick = now + TICK_S
                self._turn(deadline.pause_s(now, at_most))
            self._drain_rest()
            return False
        except BaseException:
            self._kill_all()
            raise
        finally:
            self._close()

    def _turn(self, pause_s: float) -> None:
        for descriptor, _ in self._poll.poll(pause_s * 1000):
            if descriptor in self._streams:
                self._read(descriptor)
            elif descriptor != self._pidfd:
                self._feed()

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if data:
            kept = self._streams[descriptor]
            kept += data[: self._limit_bytes - len(kept)]
        else:
            self._poll.unregister(descriptor)
            del self._streams[descriptor]

    def _feed(self) -> None:
        stdin = self.process.streams[0]
        try:
            self._to_write = self._to_write[os.write(stdin, self._to_write[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._to_write = memoryview(b"")  # it does not want to read it
        if not self._to_write:
            self._poll.unregister(stdin)
            self.process.close_stream(0)

    def _drain_rest(self) -> None:
        until = time.monotonic() + _AFTER_EXIT_S
        if self._pidfd is not None:
            self._poll.unregister(self._pidfd)
        if self.process.streams[0] >= 0:
            self._poll.unregister(self.process.streams[0])
        while self._streams and time.monotonic() < until:
            ready = self._poll.poll(0)
            if not ready:
                break
            for descriptor, _ in ready:
                self._read(descriptor)

    def _kill_all(self) -> None:
        """Everything that descends from the tool: its tree, what fell to us as subreaper, what
        joined its group meanwhile.
        """
        until = time.monotonic() + _KILL_S
        ours = {os.getpid()} | self._strangers
        while True:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except OSError:
                pass  # gone already; without /proc (landlock) this is all that reaches it
            if self.process.poll() is None:
                processes.kill_tree(self.process.pid, deadline_s=0.2)
            adopted = set(processes.children_of(os.getpid())) - ours - {self.process.pid}
            for pid in adopted:
                processes.kill_tree(pid, deadline_s=0.2)
                _reap(pid)
            members = _members(self._places) - ours
            processes.signal_all(members, signal.SIGKILL)
            if (
                not adopted and not members and self.process.poll() is not None
            ) or time.monotonic() > until:
                break
            time.sleep(0.005)
        if self.process.status is None:
            self.process.status = -signal.SIGKILL  # in state D: it dies when the kernel lets it

    def _close(self) -> None:
        self.process.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        _adopted.update(
            set(processes.children_of(os.getpid())) - self._strangers - {self.process.pid}
        )


def _members(places: Iterable[str]) -> set[int]:
    found: set[int] = set()
    for file in places:
        try:
            with open(file, "rb", buffering=0) as procs:
                found.update(int(word) for word in procs.read().split())
        except OSError:
            continue  # may not be read behind a fence
    return found


def _reap(pid: int) -> bool:
    """Whether nothing is left to reap of ``pid``."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # it went to init


def _reap_adopted() -> None:
    _adopted.difference_update([pid for pid in _adopted if _reap(pid)])


def is_child_subreaper() -> bool:
    """Whether this process adopts orphaned descendants."""
    value = ctypes.c_int(0)
    prctl.libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0)
    return value.value != 0
