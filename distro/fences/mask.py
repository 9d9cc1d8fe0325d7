"""The profile `default`: folders of the agent hidden from a handler that does not look for them,
and tracing of the agent refused.

A handler is root with all capabilities, and can take both away: this keeps accidents out, not
hostility. Nothing else of the system differs: mounts that the handler makes are seen by everybody.

A mount appears in other namespaces when the mount *below* it is shared: an empty file system laid
straight on a folder of ours would blind the agent itself. So the folder is first bound onto itself
on the system, once, and that mount made private; what the handler's namespace lays over it stays
there (mount_namespaces(7)). Where `/` is not shared, mounts of a handler's own namespace would be
seen by nobody else: there nothing is hidden.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable

from waagent.distro.fences import call_filter
from waagent.distro.fences.call_filter import Rule
from waagent.distro.fences.mounts import (
    BIND,
    NEW_MOUNTS,
    NO_DEVICES,
    NO_EXECUTE,
    NO_SUID,
    PRIVATE,
    enter_mounts,
    mount,
    mounts_of_self,
    unshare,
)
from waagent.distro.fences.process_flags import FenceError
from waagent.distro.fences.system_calls import BY_NAME

MARK = ".masked"
# the call, and which of its arguments is a pid
_TRACING = (("ptrace", 1), ("process_vm_readv", 0), ("process_vm_writev", 0), ("pidfd_open", 0))


def put_on(own_folders: Iterable[str], hidden: Iterable[str], agent: Iterable[int]) -> str:
    """Hide the folders ``hidden``, each in one of ``own_folders``, and refuse tracing of ``agent``
    (pids); what is in force, in words. Never fails: the handler runs all the same.
    """
    said = []
    try:
        hide(own_folders, hidden)
        said.append("masked")
    except (FenceError, OSError) as error:
        said.append(f"not masked ({error})")
    try:
        refuse_tracing(agent)
    except FenceError as error:
        said.append(f"tracing not refused ({error})")
    return ", ".join(said)


def hide(own_folders: Iterable[str], hidden: Iterable[str]) -> None:
    """A mount namespace in which ``hidden`` is empty. Raises FenceError or OSError, with nothing
    hidden, or only a part.
    """
    root = next((one for one in reversed(mounts_of_self()) if one.point == "/"), None)
    if root is None or not root.is_shared:
        raise FenceError("mounts of this system are private", "/", "mount --make-rshared /")
    for folder in own_folders:
        if os.path.isdir(folder):
            make_private(folder)
    unshare(NEW_MOUNTS)
    # writable: an installer that runs inside a handler makes its folders there, and finds no error
    flags = NO_SUID | NO_DEVICES | NO_EXECUTE
    for folder in hidden:
        if os.path.isdir(folder):
            mount("waagent-mask", folder, "tmpfs", flags, "mode=755,size=64k")
            os.close(os.open(f"{folder}/{MARK}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o400))


def leave() -> None:
    """Back into the system's own mounts, for a command of the agent that runs inside a handler: it
    would see, start or clean up only what is not hidden. Raises OSError.
    """
    here = os.getcwd()
    enter_mounts("/proc/1/ns/mnt")
    os.chdir(here)


def make_private(folder: str) -> None:
    """Bind ``folder`` onto itself, privately, when it is not yet; for the whole system. Raises
    FenceError or OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # another handler may be about to do the same
        there = [one for one in mounts_of_self() if one.point == os.path.realpath(folder)]
        if not there or there[-1].is_shared:
            mount(folder, folder, flags=BIND)
            mount("none", folder, flags=PRIVATE)
    finally:
        os.close(descriptor)


def refuse_tracing(agent: Iterable[int]) -> None:
    """EPERM for who wants to trace, read or write ``agent``; /proc/<pid>/mem stays open. Raises
    FenceError.
    """
    pids = tuple(agent)
    if not pids:
        return
    native = call_filter.architecture()
    rules = []
    for name, argument in _TRACING:
        number = BY_NAME[name].number(native)
        assert number is not None
        rules.append(Rule(number, call_filter.error(errno.EPERM), argument, pids))
    call_filter.install(call_filter.program(tuple(rules), native, call_filter.ALLOW))
