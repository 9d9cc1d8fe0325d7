"""`kill -9` of disk_manager, tools and all, at points spread over its work."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

POINTS = 30
OPTIONS = {"ResourceDisk.EnableSwap": True, "ResourceDisk.SwapSizeMB": 16}
FRESH = (
    "wipefs -qa {d}; partx --delete {d} 2>/dev/null;"
    " printf 'label: dos\\nstart=2048, type=7\\n' | sfdisk -q --no-reread --no-tell-kernel {d}"
)


def test_killed_anywhere_it_ends_right_and_nothing_half_made_is_mounted(
    swap_alone: None, vm: Any, a_disk: Callable[..., Any], shown: Any
) -> None:
    disk = a_disk(64)
    order = json.dumps({"disk": disk.name, "options": OPTIONS, "budget_s": 5.0})
    floor = ["/usr/lib/waagent/bin/python", "/root/disk_floor.py", order]
    make_fresh(vm, disk)
    began = time.monotonic()
    vm.run(floor, check=True)
    whole_s = time.monotonic() - began
    problems, half_made = [], 0

    for point in range(POINTS):
        release(vm, disk)
        make_fresh(vm, disk)
        at_s = whole_s * (point + 0.5) / POINTS
        vm.run(["python3", "/root/kill_after.py", f"{at_s:.3f}", *floor], check=True)
        record = vm.exists("/var/lib/waagent/resource_disk.json")
        half_made += record
        if record and disk.mounted():
            problems.append(f"{at_s:.3f} s: mounted although it is half made")

        said = json.loads(vm.run(floor, check=True).stdout)

        if said["summary"] != "/mnt/resource, swap 16 MiB":
            problems.append(f"{at_s:.3f} s: {said['summary']} {said['log'][-300:]}")
        facts = vm.run(["stat", "-c", "%s %a", "/mnt/resource/swapfile"]).stdout.split()
        is_on = "/mnt/resource/swapfile" in vm.read("/proc/swaps")
        if [len(disk.mounted()), facts, is_on] != [1, [str(16 << 20), "600"], True]:
            problems.append(f"{at_s:.3f} s: {disk.mounted()} {facts} {is_on}")

    shown(f"resource disk: killed at {POINTS} points of {whole_s:.2f} s, {half_made} half made")
    assert not problems, "\n".join(problems)


def make_fresh(vm: Any, disk: Any) -> None:
    """The disk as the platform ships it."""
    vm.run(["sh", "-c", FRESH.format(d=disk.device)], check=True)
    disk.partitions()
    vm.run(["mkntfs", "-qQ", f"{disk.device}p1"], check=True)


def release(vm: Any, disk: Any) -> None:
    """Nobody uses it any more."""
    vm.run(["swapoff", "/mnt/resource/swapfile"])
    for _, point, _ in disk.mounted():
        vm.run(["umount", point])
    vm.run(["rm", "-f", "/var/lib/waagent/resource_disk.json"])
