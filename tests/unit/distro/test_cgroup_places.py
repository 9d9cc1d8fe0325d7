"""Where cgroups are found, for the shapes of machines that are not at hand."""

from __future__ import annotations

import pytest

from waagent.distro.cgroups import groups, oom
from waagent.distro.cgroups.trees import Tree
from waagent.distro.operations.operation_tree import operation_tree

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"""


def test_v2_of_a_systemd_unit_is_the_unit_s_folder() -> None:
    found = groups.find(V2, "0::/system.slice/waagent.service\n")

    assert found == [(2, (), "/sys/fs/cgroup/system.slice/waagent.service")]


def test_v1_controllers_come_before_v2_and_those_without_use_are_left_out() -> None:
    membership = "4:cpu,cpuacct:/a\n3:memory:/a\n2:blkio:/\n1:name=systemd:/a\n0::/b\n"

    found = groups.find(HYBRID, membership)

    assert found == [
        (1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/a"),
        (1, ("memory",), "/sys/fs/cgroup/memory/a"),
        (2, (), "/sys/fs/cgroup/unified/b"),
    ]


def test_a_bind_mount_of_a_part_shows_only_what_is_in_it() -> None:
    mounted = "30 23 0:26 /docker/7f /sys/fs/cgroup rw - cgroup2 cgroup rw"

    assert groups.find(mounted, "0::/docker/7f/app\n") == [(2, (), "/sys/fs/cgroup/app")]
    assert groups.find(mounted, "0::/docker/7f\n") == [(2, (), "/sys/fs/cgroup")]
    assert groups.find(mounted, "0::/docker/8a\n") == []


def test_a_cgroup_outside_of_our_namespace_is_none() -> None:
    assert groups.find(V2, "0::/../other\n") == []


def test_a_hierarchy_mounted_twice_counts_once() -> None:
    assert len(groups.find(V2 + "\n" + V2.replace("/sys/fs/cgroup", "/mnt/c"), "0::/\n")) == 1


@pytest.mark.parametrize(
    "mounts, membership",
    [("", ""), ("garbage", "0::/\n"), ("1 2 0:3 / /x rw - ext4 /dev/sda rw", "0::/\n")],
)
def test_a_machine_without_cgroups_has_none(mounts: str, membership: str) -> None:
    assert groups.find(mounts, membership) == []


@pytest.mark.parametrize(
    "inside, base",
    [
        ("/x/waagent/supervisor", "/x"),
        ("/x/waagent/w-fabric_client/worker", "/x"),
        ("/x/waagent/w-a/tools", "/x"),
        ("/system.slice/waagent.service", "/system.slice/waagent.service"),
        ("/system.slice/waagent.service/waagent/supervisor", "/system.slice/waagent.service"),
        ("/system.slice/waagent.service/supervisor", "/system.slice"),
        ("/waagent-operations/Contoso/7/shim", "/waagent-operations/Contoso/7/shim"),
    ],
)
def test_the_base_is_what_init_gave_us_from_wherever_we_look(inside: str, base: str) -> None:
    assert groups.above_our_leaves(inside) == base


def test_switched_off_means_none_and_nothing_fails() -> None:
    for tree in (Tree((), "waagent"), operation_tree(enabled=False)):
        leaf = tree.leaf("w-x")
        leaf.join()
        leaf.kill()
        leaf.remove()

        assert tree.description == "none"
        assert (leaf.procs_files, leaf.pids(), leaf.is_empty(), oom.oom_kills(leaf.joined)) == (
            (),
            [],
            True,
            0,
        )
        assert tree.existing() == [] and tree.empty(deadline_s=0.1) == []
