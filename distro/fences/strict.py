"""The profile `strict`: a box that holds against a handler that is hostile.

Namespaces of its own (mounts, processes, IPC, network unless it is allowed), a system that is read
only but for the paths it was given, a small /dev, no capability but the chosen ones, no new
privileges, and a filter of system calls that knows no mount, namespace, module, trace or local
socket. In two steps: `make_box` in the process that leaves the system's namespaces, `close_box` in
the first process of the new ones. After it nothing can be taken back, by root neither.

What cannot be put up raises FenceError, and nothing of the handler runs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from waagent.distro.fences import call_filter, mounts
from waagent.distro.fences.call_filter import TELL, Rule
from waagent.distro.fences.capabilities import keep_only
from waagent.distro.fences.mounts import (
    BIND,
    NO_DEVICES,
    NO_EXECUTE,
    NO_SUID,
    PRIVATE,
    READ_ONLY,
    RECURSIVE,
    mount,
    remount,
)
from waagent.distro.fences.process_flags import FenceError, set_no_new_privileges
from waagent.distro.fences.system_calls import (
    BY_NAME,
    CALLS,
    CHANGE,
    CLONE3,
    CONNECT,
    DENY,
    OPEN,
    OPEN_HOW,
)
from waagent.protocol.base.records import Record

TEMPORARY = ("/tmp", "/var/tmp")
HIDDEN = ("/run", "/dev", *TEMPORARY)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
_RESOLVER = ("/run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/resolv.conf")
_PLAIN = NO_SUID | NO_DEVICES
# linux/sched.h: the namespaces that clone(2) makes
_NEW_NAMESPACE = 0x7E020000
_INTERNET, _INTERNET_6, _NETLINK, _DATAGRAM, _KIND = 2, 10, 16, 2, 0xF


class Box(Record):
    """What a strict handler is given."""

    writable: tuple[str, ...]
    """Folders and files; what is not there is left out."""
    readable: tuple[str, ...]
    """What stays visible inside `hidden`."""
    hidden: tuple[str, ...]
    """Folders that are empty to it, besides HIDDEN."""
    network: bool
    capabilities: tuple[str, ...]


def make_box(box: Box) -> None:
    """Leave the system's namespaces, and see of its files what ``box`` says. The caller's next
    child is the first process of the new namespaces. Raises FenceError or OSError.
    """
    flags = mounts.NEW_MOUNTS | mounts.NEW_PIDS | mounts.NEW_IPC
    mounts.unshare(flags | (0 if box.network else mounts.NEW_NETWORK))
    mount("none", "/", flags=PRIVATE | RECURSIVE)
    kept = _opened((*box.readable, *_RESOLVER))
    given = _opened(box.writable)
    hidden = tuple(dict.fromkeys((*HIDDEN, *box.hidden)))
    devices = _opened(f"/dev/{name}" for name in _DEVICES)
    _make_read_only(hidden)
    emptied = []
    for folder in hidden:
        if os.path.isdir(folder) and not os.path.islink(folder):
            mode = "1777" if folder in TEMPORARY else "755"
            mount("waagent-strict", folder, "tmpfs", NO_SUID, f"mode={mode}")
            emptied.append(folder)
    for path, descriptor in devices.items():
        _bind(descriptor, path, NO_SUID | NO_EXECUTE)
    _fill_dev()
    for path, descriptor in kept.items():
        _bind(descriptor, path, _PLAIN | READ_ONLY)
    for path, descriptor in given.items():
        _bind(descriptor, path, _PLAIN)
    for folder in emptied:
        is_writable = folder in HIDDEN and folder != "/dev"
        remount(
            folder, (NO_SUID if folder == "/dev" else _PLAIN) | (0 if is_writable else READ_ONLY)
        )


def close_box(box: Box, *, tells: bool) -> int:
    """In the first process of the new namespaces: /proc, capabilities, the filter. With ``tells``
    the descriptor on which denials are asked; else 0, and calls fail by themselves. Raises
    FenceError.
    """
    mount("proc", "/proc", "proc", _PLAIN | NO_EXECUTE | READ_ONLY)
    keep_only(box.capabilities)
    set_no_new_privileges()
    native = call_filter.architecture()
    code = call_filter.program(
        rules(native, network=box.network, tells=tells), native, call_filter.error(errno.ENOSYS)
    )
    return call_filter.install(code, listens=tells)


def rules(native: int, *, network: bool, tells: bool) -> tuple[Rule, ...]:
    """The filter. Pure. Without ``tells`` denied calls fail with EPERM, and what mounts deny is not
    looked at.
    """
    denied = TELL if tells else call_filter.error(errno.EPERM)
    found: list[Rule] = []
    for call in CALLS:
        number = call.number(native)
        if number is None:
            continue
        is_told = call.kind in (OPEN, OPEN_HOW, CHANGE) or (call.kind == CONNECT and not network)
        if call.name == "clone":
            found.append(Rule(number, denied, 0, (0,), _NEW_NAMESPACE, otherwise=True))
        elif call.kind == DENY or (tells and is_told):
            found.append(Rule(number, denied))
    sockets, pairs = BY_NAME["socket"].number(native), BY_NAME["socketpair"].number(native)
    clone3 = CLONE3.number(native)
    assert sockets is not None and pairs is not None and clone3 is not None
    families = (_INTERNET, _INTERNET_6, _NETLINK)
    return (
        Rule(sockets, denied, 0, families, otherwise=True),
        # a datagram one could be pointed at any local socket
        Rule(pairs, denied, 1, (_DATAGRAM,), _KIND),
        Rule(clone3, call_filter.error(errno.ENOSYS)),
        *found,
    )


def _opened(paths: Iterable[str]) -> dict[str, int]:
    """Path -> descriptor of what is there; a link at its end is nothing."""
    found = {}
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # not on this machine
        if stat.S_ISLNK(os.fstat(descriptor).st_mode):
            os.close(descriptor)
        else:
            found[path] = descriptor
    return found


def _make_read_only(hidden: tuple[str, ...]) -> None:
    """Every mount but those that will not be seen."""
    covered = tuple(f"{folder}/" for folder in ("/proc", *hidden))
    for one in mounts.mounts_of_self():
        if f"{one.point}/".startswith(covered):
            continue
        try:
            remount(one.point, one.flags | READ_ONLY)
        except FenceError:
            # below another mount, nobody can reach it: what stands at its path must be read only
            if os.path.exists(one.point) and not os.statvfs(one.point).f_flag & os.ST_RDONLY:
                raise


def _bind(descriptor: int, path: str, flags: int) -> None:
    """Show what ``descriptor`` is at ``path``, made when it is not there."""
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    if not os.path.lexists(path):
        os.makedirs(path if is_folder else os.path.dirname(path), 0o755, exist_ok=True)
        if not is_folder:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    mount(f"/proc/self/fd/{descriptor}", path, flags=BIND)
    remount(path, flags)
    os.close(descriptor)


def _fill_dev() -> None:
    for name, goal in _LINKS:
        os.symlink(goal, f"/dev/{name}")
    for name in ("shm", "pts"):
        os.mkdir(f"/dev/{name}")
    mount("waagent-strict", "/dev/shm", "tmpfs", _PLAIN, "mode=1777")
    flags = NO_SUID | NO_EXECUTE
    mount("devpts", "/dev/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", "/dev/ptmx")
