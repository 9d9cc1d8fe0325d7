"""The agent's cgroups: one for the supervisor, one for each worker, one for what workers' tools
leave behind.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping

from waagent.distro import kernel_files, machine, process_tree
from waagent.distro.cgroups.groups import Group
from waagent.distro.cgroups.trees import Leaf, Limits, Tree

EMPTY_S = 1.0  # for killed processes to be gone


class WorkerCgroups:
    """Invariant: what is in a worker's place is the worker's, tools and all; without cgroups every
    place is empty.
    """

    def __init__(self, bases: Iterable[Group], name: str, *, psi: bool) -> None:
        """``bases`` is what init gave us, nothing for no cgroups; ``name`` is the tree's; ``psi``
        says whether memory pressure is looked at. Nobody is moved yet.
        """
        self._psi = psi
        self._tree, self._left = Tree(bases, name), Tree((), "")
        self._leaves: dict[str, Leaf] = {}
        self.description = self._tree.description
        """What is in force; `none` without cgroups."""
        self.refused: tuple[str, ...] = ()
        """Hierarchies that did not take us, a sentence each."""

    def clear(self) -> list[int]:
        """Kill what an earlier agent left in them; pids that stay."""
        return self._tree.empty(deadline_s=EMPTY_S)

    def make(self, limits: Mapping[str, tuple[int, int, int | None]]) -> None:
        """Our own place, joined, and one for each name: its MiB and number of processes, and the
        MiB of its tools.

        We leave init's cgroup first: v2 hands no controller down from a cgroup with processes.
        """
        self.refused = self._tree.enter("supervisor")
        self._left = Tree(self._tree.bases, f"{self._tree.name}-left")
        self._left.leaf("daemons")
        for name, (memory_mib, pids, tools_mib) in limits.items():
            self._leaves[name] = self._tree.leaf(f"w-{name}", Limits(memory_mib, pids))
            self._tree.leaf(f"w-{name}/tools", Limits(tools_mib))
        self.description = self._tree.description

    def files(self, name: str) -> dict[str, list[str]]:
        """The `cgroup.procs` files of the worker ``name`` (``procs``), of its tools (``place``), of
        what these leave (``outside``).
        """
        tools, outside = self._tree.place(f"w-{name}/tools"), self._left.place("daemons")
        leaves = {"procs": self._leaves[name], "place": tools, "outside": outside}
        return {use: list(map(str, leaf.procs_files)) for use, leaf in leaves.items()}

    def kill(self, name: str, pid: int | None) -> None:
        """SIGKILL for ``pid`` and all that lives in the place; a walk of its children where there
        is no cgroup.
        """
        if pid is not None and not self._leaves[name].procs_files:
            process_tree.kill_tree(pid, deadline_s=0.2)
        elif pid is not None:
            process_tree.signal_all([pid], signal.SIGKILL)
        if self.is_occupied(name):
            self._leaves[name].kill()

    def is_occupied(self, name: str) -> bool:
        """Whether anything lives there."""
        return not self._leaves[name].is_empty()

    def is_stalled(self, name: str, pid: int | None) -> bool:
        """Whether something there waits for a disk, or everybody for memory."""
        return machine.is_stalled({*self._leaves[name].pids(), pid or 0}, psi=self._psi)

    def leave(self) -> None:
        """The end of all that lives there, and of the places as far as they are empty."""
        for file in self._tree.place("supervisor").procs_files:
            # a v2 cgroup that hands controllers down takes no process: init removes it
            kernel_files.try_write(str(file.parents[2] / "cgroup.procs"), "0")
        self.clear()
        self._tree.remove()
        self._left.remove()
