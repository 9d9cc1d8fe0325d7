"""What a process gives up before its own code runs: capabilities, ids, the file system, memory
dumps, limits.

Each fence is one function; it acts on the calling process. Names of capabilities are those of
capabilities(7) without ``CAP_``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from waagent.distro.kernel import LANDLOCK_CREATE
from waagent.distro.kernel import landlock_level as landlock_level
from waagent.distro.kernel import lock_memory as lock_memory
from waagent.distro.kernel import set_oom_score as set_oom_score
from waagent.distro.prctl import is_child_subreaper as is_child_subreaper
from waagent.distro.prctl import libc, prctl
from waagent.distro.prctl import set_child_subreaper as set_child_subreaper
from waagent.distro.prctl import set_name as set_name
from waagent.protocol.base.errors import ExplainedError

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
"""By number, linux/capability.h."""

# linux/landlock.h: the system calls have one number on all architectures but alpha
_LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2


class FenceError(ExplainedError):
    """A fence that must stand could not be put up: what, where, remedy."""


def _must(done: bool, what: str) -> None:
    if not done:
        number = ctypes.get_errno()
        raise FenceError(
            what,
            os.strerror(number),
            "look at the roster's row, and at what the service manager took away",
        )


def set_parent_death_signal(number: int) -> None:
    """Get this signal when the parent (the thread that forked us) dies. Every later change of uid
    or gid takes it away.
    """
    _must(prctl(_PR_SET_PDEATHSIG, number) == 0, "the parent's death cannot be signalled")


def set_dumpable(dumpable: bool) -> None:
    """False: no core dump, and no ptrace by our own uid."""
    _must(prctl(_PR_SET_DUMPABLE, int(dumpable)) == 0, "core dumps cannot be switched")


def set_no_new_privileges() -> None:
    """No execve grants anything from now on."""
    _must(prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0, "no_new_privs cannot be set")


def capability_mask(names: Iterable[str]) -> int:
    """The bits of these capabilities. Raises FenceError for a name that does not exist."""
    mask = 0
    for name in names:
        plain = name.upper()
        plain = plain[4:] if plain.startswith("CAP_") else plain
        if plain not in CAPABILITIES:
            raise FenceError(
                f"{name} is no capability", "distro/fences.py", "use a name of capabilities(7)"
            )
        mask |= 1 << CAPABILITIES.index(plain)
    return mask


def keep_capabilities(names: Iterable[str]) -> None:
    """Effective and permitted become ``names``, as far as they were permitted; inheritable and
    ambient become empty.

    The bounding set stays, so that a tool executed by uid 0 has what tools expect.
    """
    permitted = capability_mask(names) & _permitted()
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)  # EINVAL before Linux 4.3: there is none
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    _must(libc.capset(head, sets) == 0, "capabilities cannot be reduced")


def _permitted() -> int:
    return _capability_sets()[1]


def _capability_sets() -> tuple[int, int]:
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    _must(libc.capget(head, sets) == 0, "capabilities cannot be read")
    low_effective, low_permitted, _, high_effective, high_permitted, _ = struct.unpack(
        "=6I", sets.raw[:24]
    )
    return low_effective | high_effective << 32, low_permitted | high_permitted << 32


def capabilities_of_self() -> list[str]:
    """Names of what is effective now."""
    effective = _capability_sets()[0]
    return [name for number, name in enumerate(CAPABILITIES) if effective >> number & 1]


def drop_to(uid: int, gid: int, groups: Iterable[int], keep: Iterable[str] = ()) -> None:
    """Become ``uid``, for good, with just the capabilities ``keep``. Ambient is not used: what is
    executed has none of them.
    """
    kept = tuple(keep)
    _must(prctl(_PR_SET_KEEPCAPS, 1) == 0, "capabilities cannot be kept over a change of uid")
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _must(prctl(_PR_SET_KEEPCAPS, 0) == 0, "keeping of capabilities cannot be ended")
    keep_capabilities(kept)


def landlock(
    read_execute: Iterable[Path | str],
    read_write: Iterable[Path | str],
    *,
    devices: Iterable[Path | str] = ("/dev/null",),
    enabled: bool = True,
) -> str | None:
    """Leave of the file system only what is listed; e.g. ``landlock 7``, None where there is none.

    Folders: ``read_execute`` is read and executed, ``read_write`` read and written but not
    executed. ``devices`` are read and written. Paths that do not exist are skipped. Sets
    no_new_privs. From level 6 on signals and abstract sockets reach only whom the process itself
    started. Raises FenceError when a kernel that has landlock refuses.
    """
    level = landlock_level() if enabled else 0
    if level == 0:
        return None
    set_no_new_privileges()
    handled = _rights_known(level)
    attributes = struct.pack(
        "=QQQ", handled, 0, _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if level >= 6 else 0
    )
    size = 24 if level >= 6 else 8
    ruleset = int(
        libc.syscall(
            ctypes.c_long(LANDLOCK_CREATE), attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)
        )
    )
    _must(ruleset >= 0, "landlock gives no ruleset")
    try:
        writable = handled & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK)
        readable, usable = _EXECUTE | _READ_FILE | _READ_DIR, _READ_FILE | _WRITE_FILE
        for paths, rights in ((read_execute, readable), (read_write, writable), (devices, usable)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        done = (
            libc.syscall(
                ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0)
            )
            == 0
        )
        _must(done, "landlock does not take the ruleset")
    finally:
        os.close(ruleset)
    return f"landlock {level}"


def _rights_known(level: int) -> int:
    """All rights on files that this ABI level can restrict; what is not handled stays allowed."""
    handled = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        handled |= right if level >= since else 0
    return handled


def _allow(ruleset: int, path: Path | str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        call = (
            ctypes.c_long(_LANDLOCK_ADD_RULE),
            ctypes.c_int(ruleset),
            ctypes.c_int(1),
            rule,
            ctypes.c_uint32(0),
        )
        _must(libc.syscall(*call) == 0, f"landlock does not take {path}")
    finally:
        os.close(descriptor)


def set_limits(
    *,
    nofile: int | None = None,
    processes: int | None = None,
    core_bytes: int | None = 0,
    data_mib: int | None = None,
) -> None:
    """Set soft and hard rlimits; None leaves one alone. ``processes`` counts all of the uid and
    does not bind root.
    """
    wanted = (
        (resource.RLIMIT_NOFILE, nofile),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, core_bytes),
        (resource.RLIMIT_DATA, None if data_mib is None else data_mib << 20),
    )
    for which, value in wanted:
        if value is not None:
            hard = resource.getrlimit(which)[1]
            ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (ceiling, ceiling))
