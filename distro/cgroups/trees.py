"""Our places among the cgroups of this machine: one tree for the agent's processes, one beside it
for operations.

Three shapes: v2 with controllers delegated to us; v1 controllers (and a v2 hierarchy without
controllers, or the freezer, for tracking and kill); none. A tree has one folder per hierarchy, all
of the same relative path. The base is the cgroup that init gave us: a process that already sits in
a leaf of ours (``…/<tree>/supervisor``, ``…/<tree>/w-x/worker``) goes up from there.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

from waagent.distro.cgroups import groups
from waagent.distro.cgroups.groups import Group
from waagent.protocol.base.records import Record

_ROUND_PAUSE_S = 0.004


class Limits(Record):
    """Ceilings of one leaf; None leaves the kernel's default."""

    memory_mib: int | None = None
    pids: int | None = None
    cpu_weight: int | None = None
    """v2 scale: 100 is what everybody has."""


class Leaf:
    """One place for processes. Holds: the same relative folder in every hierarchy in use; without
    any, every call does nothing.

    A worker's place ``w-x`` has two leaves, ``w-x/worker`` with its limits and ``w-x/tools``
    without: joining goes to the first, kill, pids and removal mean both.
    """

    def __init__(self, place: Iterable[Group], joins: str = "") -> None:
        self.groups = list(place)
        self.joined = groups.below(self.groups, joins)
        self.procs_files = tuple(Path(folder, "cgroup.procs") for _, _, folder in self.joined)

    def join(self) -> None:
        """Move the calling process (and what it will fork) here. Raises OSError when the kernel
        refuses.
        """
        groups.join(self.joined)

    def pids(self) -> list[int]:
        """Who is in here, sub-groups included."""
        return groups.pids(self.groups)

    def is_empty(self) -> bool:
        """Whether nothing lives here (a zombie counts until it is reaped on v1)."""
        return not self.pids()

    def kill(self) -> None:
        """SIGKILL to all that is in here; returns without waiting for them to be gone."""
        groups.kill(self.groups)

    def remove(self) -> None:
        """Take the folders away; what is not empty stays."""
        groups.remove(self.groups)


class Tree:
    """All places of one kind (workers, operations). Invariant: a hierarchy that refused us once is
    not tried again.
    """

    def __init__(self, bases: Iterable[Group], name: str) -> None:
        self.name = name
        made = [_made(base, name) for base in bases]
        self._tops = _worth_joining([group for group in made if group is not None])

    @property
    def bases(self) -> list[Group]:
        """Where the tree stands, in each hierarchy that it uses."""
        return [(version, names, os.path.dirname(top)) for version, names, top in self._tops]

    @property
    def description(self) -> str:
        """What is in force, e.g. ``v1 memory pids cpu, v2 kill``; ``none`` without cgroups."""
        return groups.describe(self._tops)

    def leaf(self, name: str, limits: Limits = Limits()) -> Leaf:  # noqa: B008 - an immutable default
        """The place ``name``, made when it is not there, its limits set anew."""
        joins = _joins(name)
        place = []
        for top, base in zip(list(self._tops), self.bases):
            version, controllers, folder = top
            if controllers == ("cpu",) and limits.cpu_weight is None:
                continue  # joining each v1 hierarchy costs milliseconds of a worker's start
            try:
                # from the base on: it may have been left by its last process since it was looked at
                made = groups.make(base, "/".join(filter(None, (self.name, name, joins))))
            except OSError:
                self._tops.remove(top)
                continue
            groups.limit(made, limits.memory_mib, limits.pids, limits.cpu_weight)
            place.append((version, controllers, f"{folder}/{name}"))
        return Leaf(place, joins)

    def enter(self, name: str) -> tuple[str, ...]:
        """Make the place ``name`` and move the calling process there; a sentence for each hierarchy
        that refuses, which is not used any more.
        """
        refusals = []
        for version, controllers, folder in self.leaf(name).joined:
            try:
                groups.join([(version, controllers, folder)])
            except OSError as error:
                why = error.strerror
                refusals.append(f"cgroup v{version} at {folder} takes no process ({why}): not used")
                self._tops = [top for top in self._tops if not folder.startswith(top[2] + "/")]
        return tuple(refusals)

    def place(self, name: str) -> Leaf:
        """The place ``name`` as it is, nothing made and nothing limited."""
        return Leaf(groups.below(self._tops, name), _joins(name))

    def existing(self) -> list[str]:
        """Names of the places that are there now, first level only."""
        found = {folder for _, _, top in self._tops for folder in groups.folders_in(top)}
        return sorted(set(map(os.path.basename, found)))

    def empty(self, *, deadline_s: float) -> list[int]:
        """Kill all that lives in workers' places and remove them; pids that stay. ``supervisor`` is
        left alone.
        """
        leaves = [self.place(name) for name in self.existing() if name != "supervisor"]
        until = time.monotonic() + deadline_s
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
        groups.remove(self._tops)


def tree_name(root: str) -> str:
    """The name of the agent's tree below the root prefix ``root``: two agents of one machine share
    none.
    """
    return "waagent" if root == "/" else f"waagent-{zlib.crc32(os.fsencode(root)):08x}"


def bases_of_self() -> list[Group]:
    """The cgroup that init gave us, in each hierarchy, also when we sit in one of our own
    leaves.
    """
    above = groups.above_our_leaves
    return [(version, names, above(folder)) for version, names, folder in groups.of_self()]


def _joins(name: str) -> str:
    """A worker's processes sit one step below its place, beside its tools (v2: no processes in
    inner groups).
    """
    return "worker" if name.startswith("w-") and "/" not in name else ""


def _made(base: Group, name: str) -> Group | None:
    try:
        group = groups.make(base, name)
    except OSError:
        return None  # read-only or not ours: this hierarchy is not for us
    return group if os.access(group[2] + "/cgroup.procs", os.W_OK) else None


def _worth_joining(tops: list[Group]) -> list[Group]:
    """Without the v1 hierarchies that only count or freeze, where v2 counts CPU time and kills by
    itself.
    """
    if not any(os.path.exists(folder + "/cgroup.kill") for _, _, folder in tops):
        return tops
    wanted = [top for top in tops if top[0] == 2 or set(top[1]) & set(groups.LIMITING)]
    groups.remove([top for top in tops if top not in wanted])
    return wanted
