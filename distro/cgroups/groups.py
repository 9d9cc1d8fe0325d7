"""The cgroup file system in plain calls: where we are in it, join, limit, count, kill.

This is loaded into every shim, where a kibibyte counts. A *group* is
``(version, controllers, folder)``; one place of ours is a list of groups, one in each hierarchy.
`cgroups.py` makes trees and leaves out of them.
"""

from __future__ import annotations

import os
import time

from waagent.distro.kernel_files import read, try_write, write
from waagent.distro.process_tree import SIGKILL, signal_all

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "freezer")
LIMITING = ("memory", "pids", "cpu")
_KILL_ROUNDS = 50
_ROUND_PAUSE_S = 0.004
_FREEZE_WAIT_S = 0.05  # a process in state D never freezes: it is killed unfrozen

Group = tuple[int, tuple[str, ...], str]


def find(mountinfo: str, membership: str) -> list[Group]:
    """Our own cgroup in each hierarchy of use to us, from `/proc/self/mountinfo` and
    `/proc/self/cgroup`; v2 comes last.

    A hierarchy mounted twice counts once; one whose mount does not show our own cgroup is left out.
    """
    paths = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    found: dict[tuple[int, tuple[str, ...]], Group] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        present = kind[2].split(",") if version == 1 else ()
        controllers = tuple(name for name in CONTROLLERS if name in present)
        if version == 1 and not controllers:
            continue
        own = paths.get(controllers[0] if controllers else "")
        folder = None if own is None else _shown_at(_unescape(fields[3]), _unescape(fields[4]), own)
        if folder is not None:
            found.setdefault((version, controllers), (version, controllers, folder))
    return sorted(found.values(), key=lambda group: group[0])


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _shown_at(root: str, mount_point: str, own: str) -> str | None:
    """Where the cgroup ``own`` appears in a mount of ``root``; None outside of it."""
    if own.startswith("/.."):
        return None
    above = root.rstrip("/")
    if own == above or own.startswith(above + "/"):
        return (mount_point + own[len(above) :]).rstrip("/")
    return None


def of_self() -> list[Group]:
    """Our own cgroup in each hierarchy; empty without `/proc` or cgroups."""
    mountinfo, membership = read("/proc/self/mountinfo"), read("/proc/self/cgroup")
    return find(mountinfo, membership) if mountinfo and membership else []


def above_our_leaves(folder: str) -> str:
    """``folder`` without what our own trees added to it: the cgroup that init gave us."""
    parts = folder.split("/")
    for index, part in enumerate(parts):
        inside = parts[index + 1 :]
        is_leaf = inside == ["supervisor"] or "/".join(inside).startswith("w-")
        if part.startswith("waagent") and is_leaf:
            return "/".join(parts[:index])
    return folder


def below(groups: list[Group], path: str) -> list[Group]:
    """The same hierarchies, one path further down."""
    further = f"/{path}" if path else ""
    return [(version, names, folder + further) for version, names, folder in groups]


def make(group: Group, path: str) -> Group:
    """Make ``path`` below ``group``, on v2 with the controllers handed down at each step that holds
    no process. Raises OSError.
    """
    version, controllers, folder = group
    for part in path.split("/"):
        if version == 2:
            hand_down(folder)
        folder = f"{folder}/{part}"
        try:
            os.mkdir(folder, 0o755)
        except FileExistsError:
            continue
    return version, controllers, folder


def hand_down(folder: str) -> None:
    """Hand every controller down that we use; each alone, since one that is refused (EBUSY, ENOENT)
    would stop the others. Nothing happens while processes sit in ``folder``.

    The kernel would take threaded controllers (pids, cpu) from a cgroup with processes: its
    children become "domain invalid" and whoever joins them gets EOPNOTSUPP
    (Documentation/admin-guide/cgroup-v2.rst, "Threads"). The root, which has no `cgroup.type`, may.
    """
    present = (read(folder + "/cgroup.controllers") or "").split()
    handed = (read(folder + "/cgroup.subtree_control") or "").split()
    wanted = [name for name in LIMITING if name in present and name not in handed]
    if wanted and os.path.exists(folder + "/cgroup.type") and read(folder + "/cgroup.procs"):
        return
    for name in wanted:
        try_write(folder + "/cgroup.subtree_control", "+" + name)


def limit(
    group: Group, memory_mib: int | None, pids_limit: int | None, cpu_weight: int | None
) -> None:
    """Write the ceilings that this hierarchy has a controller for; None is the kernel's default.
    Best effort.
    """
    _, _, folder = group
    weight = 100 if cpu_weight is None else cpu_weight
    ceilings = {
        "memory.max": "max" if memory_mib is None else str(memory_mib << 20),
        "memory.limit_in_bytes": "-1" if memory_mib is None else str(memory_mib << 20),
        "cpu.weight": str(weight),
        "cpu.shares": str(max(2, weight * 1024 // 100)),
        "pids.max": "max" if pids_limit is None else str(pids_limit),
    }
    for name, value in ceilings.items():  # each version and controller has the files it knows
        try_write(f"{folder}/{name}", value)


def join(groups: list[Group]) -> None:
    """Move the calling process (and what it will fork) here. Raises OSError when the kernel
    refuses.
    """
    for _, _, folder in groups:
        write(folder + "/cgroup.procs", "0")


def pids(groups: list[Group]) -> list[int]:
    """Who is in here, sub-groups included."""
    found: set[int] = set()
    for _, _, folder in groups:
        for inner in folders_below(folder):
            words = (read(inner + "/cgroup.procs") or "").split()
            found.update(int(word) for word in words if word != "0")
    return sorted(found)


def kill(groups: list[Group]) -> None:
    """SIGKILL to all that is in here; returns without waiting for them to be gone."""
    for version, _, folder in groups:
        if version == 2 and try_write(folder + "/cgroup.kill", "1"):
            break
    else:
        _freeze_and_kill(groups)
    _kill_all(pids(groups))  # v1: who sits in a controller's folder but not in the tracking one


def _freeze_and_kill(groups: list[Group]) -> None:
    """Freeze, SIGKILL, thaw; where nothing freezes, a closed pids limit and rounds end even a fork
    bomb.
    """
    limits = {folder: read(folder + "/pids.max") for _, _, folder in groups}
    for folder, before in limits.items():
        if before is not None:
            try_write(folder + "/pids.max", "0")
    _set_frozen(groups, True)
    for _ in range(_KILL_ROUNDS):
        left = pids(groups)
        _kill_all(left)
        _set_frozen(groups, False)
        if not left:
            break
        time.sleep(_ROUND_PAUSE_S)
    for folder, before in limits.items():
        if before is not None:
            try_write(folder + "/pids.max", before.strip())


def _set_frozen(groups: list[Group], frozen: bool) -> None:
    for version, _, folder in groups:
        if version == 2:
            done = try_write(folder + "/cgroup.freeze", "1" if frozen else "0")
        else:
            done = try_write(folder + "/freezer.state", "FROZEN" if frozen else "THAWED")
        until = time.monotonic() + _FREEZE_WAIT_S
        while done and frozen and not _is_frozen(folder) and time.monotonic() < until:
            time.sleep(0.001)


def _is_frozen(folder: str) -> bool:
    states = read(folder + "/cgroup.events"), read(folder + "/freezer.state")
    return any(
        line in ("frozen 1", "FROZEN") for text in states for line in (text or "").split("\n")
    )


def _kill_all(pids: list[int]) -> None:
    signal_all((pid for pid in pids if pid != os.getpid()), SIGKILL)


def remove(groups: list[Group]) -> None:
    """Take the folders away, sub-groups first; what is not empty stays."""
    for _, _, folder in groups:
        for inner in reversed(folders_below(folder)):
            if not remove_one(inner):
                break


def remove_one(folder: str) -> bool:
    """Take one folder away; False when somebody or something is still in there."""
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def describe(groups: list[Group]) -> str:
    """What is in force in these groups, e.g. ``v1 memory pids cpu, v2 kill``; ``none`` without
    any.
    """
    limiting: set[str] = set()
    tracking = ""
    for version, controllers, folder in groups:
        here = controllers if version == 1 else (read(folder + "/cgroup.controllers") or "").split()
        limiting.update(name for name in here if name in LIMITING)
        if version == 2:
            tracking = "v2 kill" if os.path.exists(folder + "/cgroup.kill") else "v2 freeze"
        elif "freezer" in controllers:
            tracking = "v1 freezer"
    version_text = "v1" if any(version == 1 for version, _, _ in groups) else "v2"
    names = [name for name in LIMITING if name in limiting]
    limits = " ".join([version_text, *names]) if names else ""
    return ", ".join(part for part in (limits, tracking) if part) or "none"


def folders_below(folder: str) -> list[str]:
    """``folder`` and every group below it, parents first; empty when it is not there."""
    found = [folder] if os.path.isdir(folder) else []
    for inner in found:  # it grows meanwhile
        found.extend(folders_in(inner))
    return found


def folders_in(folder: str) -> list[str]:
    """The groups directly below ``folder``."""
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
