"""In which order a v2 machine sees our folders, our moving in, and controllers handed down."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.distro import kernel_files
from waagent.distro.cgroups.trees import Limits, Tree
from waagent.supervisor.worker_cgroups import WorkerCgroups

_SPEC = importlib.util.spec_from_file_location(
    "v2_kernel", Path(__file__).with_name("v2_kernel.py")
)
assert _SPEC is not None and _SPEC.loader is not None
_KERNEL = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_KERNEL)

ROWS = {"fabric_client": (64, 64, 256), "provisioner": (96, 64, None)}
USED = {"cpu", "memory", "pids"}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Any]:
    made = _KERNEL.V2Kernel(tmp_path / "waagent.service")
    yield made
    made.stop()


def cgroups_of(kernel: Any) -> WorkerCgroups:
    return WorkerCgroups([(2, (), str(kernel.base))], "waagent", psi=False)


def test_the_unit_s_cgroup_is_left_before_it_hands_anything_down(kernel: Any) -> None:
    cgroups_of(kernel).make(ROWS)

    first = [("mkdir", "waagent"), ("mkdir", "waagent/supervisor"), ("join", "waagent/supervisor")]
    what = [word for word, _ in kernel.happened]
    assert [step for step in kernel.happened if step != ("mkdir", "waagent-left")][:3] == first
    assert what.index("join") < what.index("hand down")
    assert kernel.home == kernel.base / "waagent/supervisor"


def test_each_worker_s_place_has_the_controllers(kernel: Any) -> None:
    cgroups = cgroups_of(kernel)

    cgroups.make(ROWS)

    for inner in ("", "waagent", "waagent/w-fabric_client", "waagent/w-provisioner"):
        assert kernel.handed(kernel.base / inner) == USED, inner
    for leaf in ("supervisor", "w-fabric_client/worker", "w-fabric_client/tools"):
        assert kernel.handed(kernel.base / "waagent" / leaf) == set(), leaf
    assert cgroups.refused == ()
    assert cgroups.description.startswith("v2 memory pids cpu")


def test_a_worker_can_be_put_into_its_place(kernel: Any) -> None:
    cgroups_of(kernel).make(ROWS)

    kernel_files.write(str(kernel.base / "waagent/w-fabric_client/worker/cgroup.procs"), "0")

    assert kernel.home == kernel.base / "waagent/w-fabric_client/worker"


def test_what_an_earlier_agent_left_is_used_again(kernel: Any) -> None:
    cgroups_of(kernel).make(ROWS)
    kernel.home = kernel.base / "waagent/supervisor"  # started by who sits in our leaf
    kernel.happened.clear()
    cgroups = cgroups_of(kernel)

    cgroups.make(ROWS)

    assert cgroups.refused == () and kernel.home == kernel.base / "waagent/supervisor"
    assert [step for step in kernel.happened if step[0] != "join"] == []


def test_started_beside_a_tree_whose_base_hands_down_only_the_leaf_is_joined(kernel: Any) -> None:
    cgroups_of(kernel).make(ROWS)
    kernel.home = None  # in another cgroup
    kernel.happened.clear()

    cgroups_of(kernel).make(ROWS)

    assert kernel.happened == [("join", "waagent/supervisor")]


def test_operations_beside_ours_get_their_controllers_from_the_same_base(kernel: Any) -> None:
    cgroups_of(kernel).make(ROWS)
    kernel.home = kernel.base / "waagent/w-extension_runner/worker"
    kernel.others = {kernel.base / "waagent/supervisor"}

    tree = Tree([(2, (), str(kernel.base))], "waagent-operations")
    tree.leaf("Contoso.Hello/7", Limits(64))

    assert kernel.handed(kernel.base / "waagent-operations/Contoso.Hello") == USED


def test_a_base_that_somebody_else_sits_in_hands_nothing_down_and_workers_run(kernel: Any) -> None:
    kernel.others = {kernel.base}  # the guardian, or a shell

    cgroups = cgroups_of(kernel)
    cgroups.make(ROWS)

    assert kernel.home == kernel.base / "waagent/supervisor"
    assert not [step for step in kernel.happened if step[0] == "hand down"]
    kernel_files.write(str(kernel.base / "waagent/w-provisioner/worker/cgroup.procs"), "0")


def test_a_cgroup_that_refuses_us_is_said_and_left_alone(kernel: Any) -> None:
    kernel_files.write(str(kernel.base / "cgroup.subtree_control"), "+pids")  # while we sit in it

    cgroups = cgroups_of(kernel)
    cgroups.make(ROWS)

    assert cgroups.refused == (
        f"cgroup v2 at {kernel.base}/waagent/supervisor takes no process (Operation not supported):"
        " not used",
    )
    assert cgroups.description == "none"
    assert cgroups.files("fabric_client") == {"procs": [], "place": [], "outside": []}
