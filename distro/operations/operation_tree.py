"""The cgroups of operations, beside the agent's own."""

from __future__ import annotations

from waagent.distro.cgroups.trees import Tree, bases_of_self


def operation_tree(*, enabled: bool = True, name: str = "waagent-operations") -> Tree:
    """The tree of operations: ``<name>/<Handler>/<operation>/{shim,command}``."""
    return Tree(bases_of_self() if enabled else (), name)
