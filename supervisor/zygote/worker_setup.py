"""From the fork to the first line of a worker's own code: gate, lock, cgroup, limits, uid, fence,
and the parent's death as its own.

Each step is done by root before the next one takes something away. PDEATHSIG comes last, because
any change of uid or gid clears it; the parent is compared after it, because it may have died in
between.
"""

from __future__ import annotations

import os
import pwd
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import waagent
from waagent.distro import files, kernel, locks, users
from waagent.distro.fences import capabilities, landlock, limits, prctl, process_flags
from waagent.distro.paths import Paths
from waagent.distro.process_title import set_title
from waagent.protocol import control, exit_codes
from waagent.protocol.worker_start import WorkerStart
from waagent.supervisor.roster import BUS_GROUP, ROOT_ACCOUNT

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
}
HANDED_ON = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    "LANG",
)
SNAP = "/snap/bin"
_DATA_SPARE_MIB = 64  # thread stacks count as data, though hardly any of it is touched
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc", "/opt")
# where /etc/resolv.conf may point to
_READABLE = (*_SYSTEM, "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """That of every worker, made of what init gave the supervisor: of that, handlers are promised
    the proxies and the locale. The zygote has it already.
    """
    handed_on = {
        name: value
        for name, value in given.items()
        if value and (name in HANDED_ON or name.startswith("LC_"))
    }
    if SNAP in given.get("PATH", "").split(":"):
        handed_on["PATH"] = f"{ENVIRONMENT['PATH']}:{SNAP}"
    return {**ENVIRONMENT, **handed_on}


def live(
    order: dict[str, Any], descriptors: list[int], run: Callable[[str, WorkerStart], None]
) -> None:
    """All of a worker's life; never returns."""
    status, between = 1, os.getppid()
    try:
        gate, stack, _, *listeners = descriptors
        _close_others({0, 1, 2, gate, stack, *listeners})
        if os.read(gate, 16) != b"open":
            os._exit(exit_codes.GATE)
        start = _prepare(order, stack, listeners)
        guard = _fence(order)
        _tie_to_parent(order, between)
        os.write(gate, control.pack("guard", **guard))
        os.close(gate)
        status = exit_codes.SETUP
        run(order["name"], start)
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1 if ending.code else 0
    except Exception:  # the outermost loop of this process
        import traceback  # 0.2 MiB, for the last words of one process

        traceback.print_exc()
        status = status or 1
    finally:
        _flush()
        os._exit(status)


def _close_others(kept: set[int]) -> None:
    """Nothing of the zygote's and of other workers' starts stays."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    before = 0
    for descriptor in (*sorted(kept), max(limit, 4096)):
        if before < descriptor:  # closerange(0, 0) closes everything on Python 3.11
            os.closerange(before, descriptor)
        before = descriptor + 1


def _prepare(order: dict[str, Any], stack: int, listeners: list[int]) -> WorkerStart:
    """What root does for the worker: its lock, cgroup, limits, folders, the state file."""
    paths, row = Paths(order["root"]), order["row"]
    prctl.set_name(order["name"])
    set_title(order["name"])
    os.setsid()
    os.chdir("/")
    os.umask(0o027)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        locks.take_lock(paths.locks / order["name"])
    except locks.Held as error:
        print(f"{order['name']}: {error}", file=sys.stderr, flush=True)
        os._exit(exit_codes.LOCKED)
    for file in order["procs"]:
        _write(file, "0")
    _write("/proc/self/oom_score_adj", "0")
    uid, gid = _ids(order)
    data_mib = (
        row["memory_mib"] + _DATA_SPARE_MIB
        if _is_unprivileged(row) and not order["limited"]
        else None
    )
    limits.set_limits(
        nofile=row["nofile"],
        processes=row["pids"] if uid else None,
        data_mib=data_mib,
        lowers_hard_nofile=_is_unprivileged(row),
    )
    writes = [paths.under(folder) for folder in row["writes"]]
    for folder in writes:
        files.make_folder(folder, 0o700, (uid, gid))
    if writes:
        os.environ["TMPDIR"] = str(writes[0])
    state = os.open(paths.state, os.O_RDONLY | os.O_CLOEXEC)
    tools = [_opened(file, uid) for file in order["place"]] if _is_unprivileged(row) else []
    return WorkerStart(
        name=order["name"],
        root=order["root"],
        supervisor_pid=order["supervisor_pid"],
        build=order["build"],
        listener=listeners.pop(0) if row["serves"] else None,
        handover=listeners.pop(0) if row["hands_over"] else None,
        state=state,
        place=tuple(order["place"]),
        outside=tuple(order["outside"]),
        beat_s=row["beat_s"],
        stack=stack,
        tools=tuple(descriptor for descriptor in tools if descriptor is not None),
    )


def _ids(order: dict[str, Any]) -> tuple[int, int]:
    """Uid and gid; an account that is missing has its fixed number."""
    name, number = order["row"]["account"]
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        uid = number
    return uid, users.gid_of(name, number)


def _is_unprivileged(row: dict[str, Any]) -> bool:
    """By its row: what the account is on this machine changes no fence."""
    return bool(row["account"][1] != ROOT_ACCOUNT.number)


def _fence(order: dict[str, Any]) -> dict[str, Any]:
    """Take away what the worker does not need; what is in force, for the table."""
    fence, row, groups = "none", order["row"], [users.gid_of(*BUS_GROUP)]
    if _is_unprivileged(row):
        process_flags.set_no_new_privileges()
        # where the interpreter, its library and, in a checkout, our packages are
        ours = [
            Path(sys.executable).parent.parent,
            Path(sys.base_prefix),
            Path(waagent.__file__).parent.parent,
        ]
        writes = [Paths(order["root"]).under(folder) for folder in row["writes"]]
        uid, gid = _ids(order)
        level = 0 if "landlock" in order["without"] else kernel.landlock_level()
        in_force = landlock.landlock((*_READABLE, *ours), writes, level=level)
        fence = f"no_new_privs, {in_force or 'no landlock'}"
        capabilities.drop_to(uid, gid, groups, keep=row["capabilities"])
    else:
        os.setgroups(groups)
        capabilities.keep_capabilities(row["capabilities"])
    process_flags.set_dumpable(False)
    return {"uid": os.geteuid(), "caps": capabilities.capabilities_of_self(), "fence": fence}


def _tie_to_parent(order: dict[str, Any], between: int) -> None:
    """Die with the supervisor. Without a subreaper our parent is init: then the closed control
    connection ends us.
    """
    if "subreaper" not in order["without"]:
        while os.getppid() == between != order["supervisor_pid"]:
            # the process between the zygote and us ends now; its death would be taken for the
            # supervisor's
            time.sleep(0.0005)
        process_flags.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != order["supervisor_pid"]:
            os._exit(exit_codes.GATE)


def _opened(file: str, uid: int) -> int | None:
    """``file``, opened by the worker's own uid: root's descriptor would take any process, and a
    kill of the place end it.
    """
    try:
        os.chown(file, uid, -1)
        above = os.path.dirname(os.path.dirname(file))
        # v2 wants the right to write where both places meet
        if os.path.exists(above + "/cgroup.controllers"):
            os.chown(above + "/cgroup.procs", uid, -1)
        os.seteuid(uid)
        try:
            return os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        finally:
            os.seteuid(0)
    except OSError:
        return None  # its tools stay in the worker's own place, and share its limits


def _write(file: str, text: str) -> None:
    try:
        target = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(target, text.encode())
        finally:
            os.close(target)
    except OSError as error:
        print(
            f"cannot write {text} to {file}: {error.strerror}: limits are missing, see waagent-ps"
            " --wide",
            file=sys.stderr,
            flush=True,
        )


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # the log is gone; the exit status still says what happened
