"""The agent's places among the cgroups: one for itself, one for each worker, one for what workers'
tools leave behind.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Container, Mapping

from waagent.distro import machine, processes
from waagent.distro.cgroups import trees
from waagent.distro.cgroups.trees import Leaf, Limits

EMPTY_S = 1.0  # for killed processes to be gone


class Places:
    """Invariant: what is in a worker's place is the worker's, tools and all; without cgroups every
    place is empty.
    """

    def __init__(self, name: str, without: Container[str]) -> None:
        """``name`` of the tree; ``without`` may name `cgroups` and `psi`. Nothing is made yet."""
        enabled, self._psi = "cgroups" not in without, "psi" not in without
        self._tree = trees.worker_tree(enabled=enabled, name=name)
        self._left = trees.worker_tree(enabled=enabled, name=f"{name}-left")
        self._leaves: dict[str, Leaf] = {}
        self.description = self._tree.description
        """What is in force; `none` without cgroups."""

    def clear(self) -> list[int]:
        """Kill what an earlier agent left in them; pids that stay."""
        return self._tree.empty(deadline_s=EMPTY_S)

    def make(self, limits: Mapping[str, tuple[int, int, int | None]]) -> None:
        """Our own place, joined, and one for each name: its MiB and number of processes, and the
        MiB of its tools.
        """
        self._tree.leaf("supervisor").join()
        self._left.leaf("daemons")
        for name, (memory_mib, pids, tools_mib) in limits.items():
            self._leaves[name] = self._tree.leaf(f"w-{name}", Limits(memory_mib, pids))
            self._tree.leaf(f"w-{name}/tools", Limits(tools_mib))
        self.description = self._tree.description  # a hierarchy may have refused

    def files(self, name: str) -> dict[str, list[str]]:
        """The `cgroup.procs` files of the worker ``name`` (``procs``), of its tools (``place``), of
        what these leave (``outside``).
        """
        leaves = {
            "procs": self._leaves[name],
            "place": self._tree.place(f"w-{name}/tools"),
            "outside": self._left.place("daemons"),
        }
        return {use: list(map(str, leaf.procs_files)) for use, leaf in leaves.items()}

    def kill(self, name: str, pid: int | None) -> None:
        """SIGKILL for ``pid`` and all that lives in the place; a walk of its children where there
        is no cgroup.
        """
        if pid is not None and not self._leaves[name].procs_files:
            processes.kill_tree(pid, deadline_s=0.2)
        elif pid is not None:
            processes.signal_all([pid], signal.SIGKILL)
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
            with contextlib.suppress(OSError):
                (file.parents[2] / "cgroup.procs").write_text("0")
        self.clear()
        self._tree.remove()
        self._left.remove()
