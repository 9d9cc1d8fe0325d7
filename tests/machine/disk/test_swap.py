"""Swap on the resource disk, with real file systems and the real kernel's swap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("swap_alone")
FILE = "/mnt/resource/swapfile"
WANTED = {"EnableSwap": True, "SwapSizeMB": 1000}
WATCH = """
import os, sys, time
seen = set()
while not os.path.exists("/tmp/stop"):
    try:
        facts = os.stat(sys.argv[1])
        seen.add((oct(facts.st_mode & 0o777), facts.st_uid))
    except OSError:
        pass
    time.sleep(0.001)
print(sorted(seen))
"""


def swaps(vm: Any) -> dict[str, int]:
    """File or device -> KiB that are in use as swap."""
    lines = vm.read("/proc/swaps").splitlines()[1:]
    return {line.split()[0]: int(line.split()[2]) for line in lines}


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_swap_has_its_size_to_the_byte_and_is_not_made_again(
    vm: Any, a_disk: Callable[..., Any], kind: str
) -> None:
    disk, other = a_disk(1600), a_disk(32)
    vm.run(["sh", "-c", f"mkswap -q {other.device}; swapon {other.device}"], check=True)
    vm.run(["rm", "-f", "/tmp/stop"])
    watch = vm.popen(["python3", "-c", WATCH, FILE], stdout=-1)

    first = disk.use(Filesystem=kind, **WANTED)
    made = vm.run(["stat", "-c", "%s %a %U %b %i", FILE], check=True).stdout.split()
    again = disk.use(Filesystem=kind, **WANTED)
    vm.write("/tmp/stop", b"")
    modes = watch.communicate(timeout=20)[0].decode().strip()

    assert first["summary"] == "/mnt/resource, swap 1000 MiB", first
    assert made[:3] == [str(1000 * 1024 * 1024), "600", "root"]
    assert int(made[3]) * 512 >= 1000 * 1024 * 1024  # no holes
    assert swaps(vm)[FILE] == 1000 * 1024 - 4
    assert again["summary"] == first["summary"]
    assert "swap is on" not in again["log"]
    assert vm.run(["stat", "-c", "%s %a %U %b %i", FILE]).stdout.split() == made
    assert modes == "[('0o600', 0)]"
    assert other.device in swaps(vm)  # the user's own stays on


def test_swap_of_another_size_is_made_again_and_one_too_large_is_cut(
    vm: Any, a_disk: Callable[..., Any]
) -> None:
    disk = a_disk(128)
    disk.use(EnableSwap=True, SwapSizeMB=16)

    larger = disk.use(EnableSwap=True, SwapSizeMB=24)
    cut = disk.use(EnableSwap=True, SwapSizeMB=4096)
    kept = disk.use(EnableSwap=True, SwapSizeMB=4096)

    assert larger["summary"] == "/mnt/resource, swap 24 MiB"
    assert "does not fit" in cut["log"] and "lower ResourceDisk.SwapSizeMB" in cut["log"]
    size_mib = swaps(vm)[FILE] / 1024
    free_mib = int(vm.run(["stat", "-f", "-c", "%a %S", "/mnt/resource"]).stdout.split()[0]) / 1024
    assert 64 < size_mib < 128
    assert free_mib > 2
    assert "made=now" not in kept["log"]


def test_a_file_that_is_half_written_or_no_swap_is_made_again(
    vm: Any, a_disk: Callable[..., Any]
) -> None:
    disk = a_disk(128)
    disk.use()
    vm.run(["sh", "-c", f"truncate -s 16M {FILE}; chmod 644 {FILE}"], check=True)

    said = disk.use(EnableSwap=True, SwapSizeMB=16)

    assert "made=now" in said["log"]
    assert vm.run(["stat", "-c", "%s %a", FILE]).stdout.split() == [str(16 << 20), "600"]


def test_swap_does_not_depend_on_format(vm: Any, a_disk: Callable[..., Any]) -> None:
    disk = a_disk(128)
    script = "mkfs.ext4 -qF $1; mkdir -p /mnt/cloud; mount $1 /mnt/cloud"
    vm.run(["sh", "-c", script, "sh", disk.device], check=True)

    said = disk.use(Format=False, EnableSwap=True, SwapSizeMB=16)

    assert said["summary"] == "/mnt/cloud, swap 16 MiB"
    assert "/mnt/cloud/swapfile" in swaps(vm)


def test_without_a_mount_there_is_no_swap_on_the_root_disk(
    vm: Any, a_disk: Callable[..., Any]
) -> None:
    disk = a_disk(64)

    said = disk.use(Format=False, EnableSwap=True, SwapSizeMB=16)

    assert said["summary"].endswith("left alone")
    assert "nobody mounted" in said["log"]
    assert not vm.exists(FILE)


def test_a_link_where_the_swap_file_belongs_is_not_followed(
    vm: Any, a_disk: Callable[..., Any]
) -> None:
    disk = a_disk(128)
    disk.use()
    vm.run(["sh", "-c", f"cp /etc/passwd /root/victim; ln -s /root/victim {FILE}"], check=True)

    said = disk.use(EnableSwap=True, SwapSizeMB=16)

    assert "no regular file of ours stands there" in said["summary"]
    assert vm.read("/root/victim") == vm.read("/etc/passwd")
