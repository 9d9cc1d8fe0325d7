"""Cgroups of a test's own, gone when it ends, and operations in them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waagent.distro import processes
from waagent.distro.cgroups.trees import Tree
from waagent.distro.operations import launch, leftovers, records
from waagent.distro.operations.operation_tree import operation_tree

PYTHON = os.path.realpath("/proc/self/exe")
HANDLER = "Contoso.Test"
_numbers = itertools.count()


def wait_until(
    what: Callable[[], object], deadline_s: float = 60.0, pause_s: float = 0.01
) -> object:
    """Until ``what`` gives something true; fails with what it gave last."""
    until = time.monotonic() + deadline_s
    while not (seen := what()):
        assert time.monotonic() < until, f"not within {deadline_s} s, last seen: {seen!r}"
        time.sleep(pause_s)
    return seen


@pytest.fixture
def wait_for() -> Callable[..., object]:
    """`wait_until`, for tests (they cannot import this file)."""
    return wait_until


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree as every machine gives it; skipped where there is none."""
    made = operation_tree(name=f"waagent-test-{os.getpid()}-{next(_numbers)}")
    if made.description == "none":
        pytest.skip("no cgroup hierarchy can be written here")
    yield made
    assert made.empty(deadline_s=60) == []
    made.remove()


class Bench:
    """Plans and starts operations in one tree; remembers them so that nothing outlives the test."""

    def __init__(self, folder: Path, tree: Tree) -> None:
        self.folder, self.tree = folder, tree
        self.planned: list[Path] = []

    def plan(
        self, command: str, *, deadline_s: float = 60, folder: Path | None = None, **more: object
    ) -> Path:
        folder = folder or self.folder / f"{next(_numbers):08x}"
        environment = more.pop("environment", {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        limits = more.pop("limits", launch.DEFAULT_LIMITS)
        place = launch.make_place(self.tree, HANDLER, folder.name, limits)
        spec = launch.Spec(
            command,
            more.pop("cwd", str(self.folder)),
            environment,
            deadline_s,
            HANDLER,
            "1.0",
            "enable",
            limits=limits,
            place=place,
            **more,
        )
        launch.plan_operation(folder, spec)
        self.planned.append(folder)
        return folder

    def start(self, command: str, **more: object) -> Path:
        folder = self.plan(command, **more)
        launch.start_shim(folder, python=PYTHON)
        return folder

    def end(self, folder: Path, deadline_s: float = 60) -> records.Observation:
        """The observation when it no longer runs."""
        wait_until(lambda: records.observe(folder).state not in ("running", "planned"), deadline_s)
        return records.observe(folder)

    def run(self, command: str, **more: object) -> records.Observation:
        return self.end(self.start(command, **more))


@pytest.fixture(params=["cgroups", "without cgroups"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Operations with the machine's cgroups, and again with none."""
    tree = operation_tree(
        enabled=request.param == "cgroups", name=f"waagent-test-{os.getpid()}-{next(_numbers)}"
    )
    if request.param == "cgroups" and tree.description == "none":
        pytest.skip("no cgroup hierarchy can be written here")
    made = Bench(tmp_path, tree)
    yield made
    for folder in made.planned:
        started = launch.files.read_state_json(folder / "started.json") or {}
        assert leftovers.kill_leftovers(folder, deadline_s=60) == []
        if started and processes.is_alive(started["pid"], started["start_ticks"]):
            wait_until(lambda: not processes.is_alive(started["pid"], started["start_ticks"]))  # noqa: B023 - called before the next turn
    assert tree.empty(deadline_s=60) == []
    tree.remove()
