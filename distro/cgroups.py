"""Where our cgroups live on this machine, and how to limit, count and kill what is in one.

Three shapes: v2 with controllers delegated to us; v1 controllers (and a v2 hierarchy without controllers, or the freezer, for
tracking and kill); none. A tree has one folder per hierarchy, all of the same relative path. The base is the cgroup that
init gave us: a process that already sits in a leaf of ours (``…/<tree>/supervisor``, ``…/<tree>/w-x/worker``) goes up from there.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "freezer")
_LIMITING = ("memory", "pids", "cpu")
_KILL_ROUNDS = 50
_ROUND_PAUSE_S = 0.004
_FREEZE_WAIT_S = 0.05  # a process in state D never freezes: it is killed unfrozen
MIB = 1 << 20


class Limits(NamedTuple):
    """Ceilings of one leaf; None leaves the kernel's default."""

    memory_mib: int | None = None
    pids: int | None = None
    cpu_weight: int | None = None
    """v2 scale: 100 is what everybody has."""


class Hierarchy(NamedTuple):
    """One mounted cgroup hierarchy and our base in it."""

    version: int
    controllers: tuple[str, ...]
    base: Path


def find_hierarchies(mountinfo: str, membership: str) -> list[Hierarchy]:
    """The hierarchies that `/proc/self/mountinfo` and `/proc/self/cgroup` name and that are of use to us; v2 comes last.

    A hierarchy mounted twice counts once; one whose mount does not show our own cgroup is left out.
    """
    paths = _paths_by_controller(membership)
    found: dict[tuple[int, tuple[str, ...]], Hierarchy] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        controllers = tuple(name for name in CONTROLLERS if version == 1 and name in kind[2].split(","))
        if version == 1 and not controllers:
            continue
        own = paths.get(controllers[0] if controllers else "")
        base = None if own is None else _shown_at(_unescape(fields[3]), Path(_unescape(fields[4])), own)
        if base is not None:
            found.setdefault((version, controllers), Hierarchy(version, controllers, _above_our_leaves(base)))
    return sorted(found.values(), key=lambda hierarchy: hierarchy.version)


def _paths_by_controller(membership: str) -> dict[str, str]:
    paths: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    return paths


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _shown_at(root: str, mount_point: Path, own: str) -> Path | None:
    """Where the cgroup ``own`` appears in a mount of ``root``; None outside of it."""
    if own.startswith("/.."):
        return None
    if root == "/":
        return mount_point / own.lstrip("/")
    if own == root or own.startswith(root + "/"):
        return mount_point / own[len(root) :].lstrip("/")
    return None


def _above_our_leaves(base: Path) -> Path:
    """The cgroup that init gave us, seen from one of our own leaves."""
    parts = base.parts
    for index, part in enumerate(parts[1:], 1):
        inside = parts[index + 1 :]
        if part.startswith("waagent") and inside and (inside == ("supervisor",) or inside[0].startswith("w-")):
            return Path(*parts[:index])
    return base


class Leaf:
    """One place for processes. Holds: the same relative folder in every hierarchy in use; without any, every call does nothing.

    A worker's place ``w-x`` has two leaves, ``w-x/worker`` with its limits and ``w-x/tools`` without: joining goes to the
    first, kill, pids and removal mean both.
    """

    def __init__(self, folders: Iterable[tuple[Hierarchy, Path]], joins: str = "") -> None:
        self.folders = tuple(folders)
        self._joined = tuple((hierarchy, folder / joins) for hierarchy, folder in self.folders)
        self.procs_files: tuple[Path, ...] = tuple(folder / "cgroup.procs" for _, folder in self._joined)

    def join(self) -> None:
        """Move the calling process (and what it will fork) here. Raises OSError when the kernel refuses."""
        for file in self.procs_files:
            _write(file, "0")

    def pids(self) -> list[int]:
        """Who is in here, sub-groups included."""
        found: set[int] = set()
        for _, folder in reversed(self.folders):
            for group in _groups_below(folder):
                found.update(_read_pids(group))
        return sorted(found)

    def is_empty(self) -> bool:
        """Whether nothing lives here (a zombie counts until it is reaped on v1)."""
        return not self.pids()

    def kill(self) -> None:
        """SIGKILL to all that is in here; returns without waiting for them to be gone."""
        for hierarchy, folder in self.folders:
            if hierarchy.version == 2 and _try_write(folder / "cgroup.kill", "1"):
                break
        else:
            self._freeze_and_kill()
        left = self.pids()  # v1: who sits in the controllers' folders but not in the tracking one
        for pid in left:
            _kill(pid)

    def _freeze_and_kill(self) -> None:
        """Freeze, SIGKILL, thaw; where nothing freezes, a closed pids limit and rounds end even a fork bomb."""
        self._set_pids_limit("0")
        self._set_frozen(True)
        for _ in range(_KILL_ROUNDS):
            left = self.pids()
            for pid in left:
                _kill(pid)
            self._set_frozen(False)
            if not left:
                break
            time.sleep(_ROUND_PAUSE_S)
        self._set_pids_limit("max")

    def _set_pids_limit(self, value: str) -> None:
        for hierarchy, folder in self.folders:
            if hierarchy.version == 2 or "pids" in hierarchy.controllers:
                _try_write(folder / "pids.max", value)

    def _set_frozen(self, frozen: bool) -> None:
        for hierarchy, folder in self.folders:
            if hierarchy.version == 2:
                done = _try_write(folder / "cgroup.freeze", "1" if frozen else "0")
            else:
                done = "freezer" in hierarchy.controllers and _try_write(
                    folder / "freezer.state", "FROZEN" if frozen else "THAWED"
                )
            if done and frozen:
                _wait_frozen(hierarchy, folder)

    def remove(self) -> None:
        """Take the folders away; what is not empty stays."""
        for _, folder in self.folders:
            for group in reversed(_groups_below(folder)):
                try:
                    os.rmdir(group)
                except OSError:
                    break  # busy: somebody is still in there

    def oom_kills(self) -> int:
        """How many processes the kernel killed here for lack of memory."""
        for hierarchy, folder in self._joined:
            if "memory" in hierarchy.controllers:
                return _field(folder / "memory.oom_control", "oom_kill")
            if hierarchy.version == 2 and (folder / "memory.events").exists():
                return _field(folder / "memory.events", "oom_kill")
        return 0

    def memory_bytes(self) -> int | None:
        """Memory charged to this leaf; None where nobody counts it."""
        for hierarchy, folder in self._joined:
            name = "memory.usage_in_bytes" if "memory" in hierarchy.controllers else "memory.current"
            text = _read(folder / name)
            if text is not None:
                return int(text)
        return None

    def cpu_s(self) -> float | None:
        """CPU time used here; None where nobody counts it."""
        for hierarchy, folder in reversed(self._joined):
            if hierarchy.version == 2 and (folder / "cpu.stat").exists():
                return _field(folder / "cpu.stat", "usage_usec") / 1e6
            text = _read(folder / "cpuacct.usage")
            if text is not None:
                return int(text) / 1e9
        return None


class Tree:
    """All places of one kind (workers, operations). Invariant: a hierarchy that refused us once is not tried again."""

    def __init__(self, hierarchies: Iterable[Hierarchy], name: str) -> None:
        self.name = name
        self._hierarchies = _worth_joining([hierarchy for hierarchy in hierarchies if _make(hierarchy.base / name)], name)

    @property
    def description(self) -> str:
        """What is in force, e.g. ``v1 memory pids cpu, v2 kill``; ``none`` without cgroups."""
        limiting, tracking = [], []
        for hierarchy in self._hierarchies:
            names = hierarchy.controllers if hierarchy.version == 1 else self._delegated(hierarchy)
            limiting += [name for name in names if name in _LIMITING]
            tracking += _tracking_words(hierarchy, hierarchy.base / self.name)
        version = "v1" if any(hierarchy.version == 1 for hierarchy in self._hierarchies) else "v2"
        if version == "v1" and any(word.startswith("v2") for word in tracking):
            tracking = [word for word in tracking if word.startswith("v2")]
        parts = ([" ".join([version, *sorted(set(limiting), key=_LIMITING.index)])] if limiting else []) + tracking
        return ", ".join(parts) or "none"

    def _delegated(self, hierarchy: Hierarchy) -> list[str]:
        return (_read(hierarchy.base / self.name / "cgroup.controllers") or "").split()

    def leaf(self, name: str, limits: Limits = Limits()) -> Leaf:  # noqa: B008 - an immutable default
        """The place ``name``, made when it is not there, its limits set anew."""
        joins = "worker" if name.startswith("w-") and "/" not in name else ""
        folders = []
        for hierarchy in list(self._hierarchies):
            if hierarchy.controllers == ("cpu",) and limits.cpu_weight is None:
                continue  # joining each v1 hierarchy costs milliseconds of a worker's start
            try:
                self._make_below(hierarchy, f"{name}/{joins}".rstrip("/"))
            except OSError:
                self._hierarchies.remove(hierarchy)
                continue
            folders.append((hierarchy, hierarchy.base / self.name / name))
        leaf = Leaf(folders, joins)
        for hierarchy, folder in leaf.folders:
            set_limits(hierarchy, folder / joins, limits)
        return leaf

    def _make_below(self, hierarchy: Hierarchy, path: str) -> None:
        folder = hierarchy.base / self.name
        if hierarchy.version == 2:
            _enable_controllers(hierarchy.base)
        for part in path.split("/"):
            if hierarchy.version == 2:
                _enable_controllers(folder)
            folder = folder / part
            folder.mkdir(mode=0o755, exist_ok=True)

    def existing(self) -> list[str]:
        """Names of the places that are there now, first level only."""
        names: set[str] = set()
        for hierarchy in self._hierarchies:
            names.update(group.name for group in _folders_in(hierarchy.base / self.name))
        return sorted(names)

    def place(self, name: str) -> Leaf:
        """The place ``name`` as it is, nothing made and nothing limited."""
        joins = "worker" if name.startswith("w-") and "/" not in name else ""
        return Leaf(((hierarchy, hierarchy.base / self.name / name) for hierarchy in self._hierarchies), joins)

    def empty(self, *, deadline_s: float) -> list[int]:
        """Kill all that lives in workers' places and remove them; pids that stay. ``supervisor`` is left alone."""
        leaves = [self.place(name) for name in self.existing() if name != "supervisor"]
        until = time.monotonic() + deadline_s
        left: list[int] = []
        while True:
            left = [pid for leaf in leaves for pid in leaf.pids()]
            if not left or time.monotonic() > until:
                break
            for leaf in leaves:
                leaf.kill()
            time.sleep(_ROUND_PAUSE_S)
        for leaf in leaves:
            leaf.remove()
        return left

    def remove(self) -> None:
        """Take the whole tree away, as far as it is empty."""
        Leaf((hierarchy, hierarchy.base / self.name) for hierarchy in self._hierarchies).remove()


def set_limits(hierarchy: Hierarchy, folder: Path, limits: Limits) -> None:
    """Write the ceilings that this hierarchy has a controller for; best effort, `description` says which there are."""
    pids = "max" if limits.pids is None else str(limits.pids)
    if hierarchy.version == 2:
        _try_write(folder / "memory.max", "max" if limits.memory_mib is None else str(limits.memory_mib * MIB))
        _try_write(folder / "cpu.weight", str(limits.cpu_weight or 100))
    if "memory" in hierarchy.controllers:
        _try_write(folder / "memory.limit_in_bytes", "-1" if limits.memory_mib is None else str(limits.memory_mib * MIB))
    if "cpu" in hierarchy.controllers:
        _try_write(folder / "cpu.shares", str(max(2, (limits.cpu_weight or 100) * 1024 // 100)))
    if hierarchy.version == 2 or "pids" in hierarchy.controllers:
        _try_write(folder / "pids.max", pids)


def worker_tree(*, enabled: bool = True, name: str = "waagent") -> Tree:
    """The tree of the agent's own processes."""
    return Tree(_own_hierarchies() if enabled else (), name)


def operation_tree(*, enabled: bool = True, name: str = "waagent-operations") -> Tree:
    """The tree of operations, beside the agent's: ``<name>/<Handler>/<operation>/{shim,command}``."""
    return Tree(_own_hierarchies() if enabled else (), name)


def _own_hierarchies() -> list[Hierarchy]:
    try:
        return find_hierarchies(Path("/proc/self/mountinfo").read_text("utf-8"), Path("/proc/self/cgroup").read_text("utf-8"))
    except OSError:
        return []


def _tracking_words(hierarchy: Hierarchy, folder: Path) -> list[str]:
    if hierarchy.version == 2:
        return ["v2 kill" if (folder / "cgroup.kill").exists() else "v2 freeze"]
    return ["v1 freezer"] if "freezer" in hierarchy.controllers else []


def _enable_controllers(folder: Path) -> None:
    """Hand every controller down that we use; each alone, since one that is refused (EBUSY, ENOENT) would stop the others."""
    present = (_read(folder / "cgroup.controllers") or "").split()
    handed = (_read(folder / "cgroup.subtree_control") or "").split()
    for name in _LIMITING:
        if name in present and name not in handed:
            _try_write(folder / "cgroup.subtree_control", f"+{name}")


def _worth_joining(hierarchies: list[Hierarchy], name: str) -> list[Hierarchy]:
    """Without the v1 hierarchies that only count or freeze, where v2 counts CPU time and kills by itself."""
    if not any((hierarchy.base / name / "cgroup.kill").exists() for hierarchy in hierarchies):
        return hierarchies
    wanted = [h for h in hierarchies if h.version == 2 or any(controller in _LIMITING for controller in h.controllers)]
    for hierarchy in hierarchies:
        if hierarchy not in wanted:
            _remove_if_empty(hierarchy.base / name)
    return wanted


def _remove_if_empty(folder: Path) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        return  # in use, or not there


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return False
    return os.access(folder / "cgroup.procs", os.W_OK)


def _groups_below(folder: Path) -> list[Path]:
    """``folder`` and every group below it, parents first; empty when it is not there."""
    found, queue = [], [folder] if folder.is_dir() else []
    while queue:
        group = queue.pop()
        found.append(group)
        queue.extend(_folders_in(group))
    return found


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _wait_frozen(hierarchy: Hierarchy, folder: Path) -> None:
    until = time.monotonic() + _FREEZE_WAIT_S
    while time.monotonic() < until:
        if hierarchy.version == 2 and _field(folder / "cgroup.events", "frozen") == 1:
            return
        if hierarchy.version == 1 and (_read(folder / "freezer.state") or "").strip() == "FROZEN":
            return
        time.sleep(0.001)


def _read_pids(group: Path) -> list[int]:
    return [int(word) for word in (_read(group / "cgroup.procs") or "").split() if word != "0"]


def _field(file: Path, name: str) -> int:
    for line in (_read(file) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(file: Path) -> str | None:
    try:
        return file.read_text("ascii")
    except OSError:
        return None  # the controller is not here, or the group went away


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    except OSError as error:
        if error.errno != errno.ESRCH:  # the process we moved ended meanwhile
            raise
    finally:
        os.close(descriptor)


def _try_write(file: Path, text: str) -> bool:
    try:
        _write(file, text)
    except OSError:
        return False
    return True


def _kill(pid: int) -> None:
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            return  # gone, or not ours
