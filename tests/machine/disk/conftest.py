"""A machine with loop disks for disk_manager."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.machine import Machine, loop

PYTHON = "/usr/lib/waagent/bin/python"
HERE = Path(__file__).parent
MIB = 1024 * 1024
_ZEROS = bytes(4096)


class LoopDisk:
    """A file as a disk of the machine. Invariant: bound until `detach`."""

    def __init__(self, vm: Machine, image: Path, *, read_only: bool = False) -> None:
        self.vm, self.image, self._read_only = vm, image, read_only
        self._holders: list[subprocess.Popen[bytes]] = []
        self.attach()

    def attach(self) -> None:
        """Bind the file (again), and make its node."""
        folder = self.image.parent
        self._bound = loop.bind(self.image, folder, read_only=self._read_only, partitions=True)
        self.is_attached = True
        self.name = f"loop{self._bound.number}"
        number = str(self._bound.number)
        self.vm.run(["mknod", f"/dev/{self.name}", "b", "7", number], check=True)

    @property
    def device(self) -> str:
        return f"/dev/{self.name}"

    def partitions(self) -> None:
        """Tell the kernel of the partitions that the table names."""
        self.vm.run(["partx", "--update", self.device])  # an empty table is an error
        script = (
            'for p in /sys/block/$1/$1p*; do [ -e "$p" ] || continue; n=/dev/${p##*/}; rm -f $n;'
            " read -r number < $p/dev; mknod $n b ${number%:*} ${number#*:} 2>/dev/null || true; done"
        )
        self.vm.run(["sh", "-c", script, "sh", self.name], check=True)

    def digest(self) -> str:
        """Of all its bytes; holes are read as what they are."""
        self.vm.run(["blockdev", "--flushbufs", self.device])
        made = hashlib.sha256()
        with open(self.image, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            at = 0
            while at < size:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    break
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                file.seek(start)
                data = file.read(min(end - start, 16 * MIB))
                for index in range(0, len(data), 4096):
                    block = data[index : index + 4096]
                    if block != _ZEROS[: len(block)]:
                        made.update(f"{start + index}".encode() + block)
                at = start + len(data)
        return made.hexdigest()

    def mounted(self) -> list[list[str]]:
        """[source, point, file system] of all mounts of it."""
        said = self.vm.run(
            ["findmnt", "--list", "--noheadings", "-o", "SOURCE,TARGET,FSTYPE"]
        ).stdout
        return [line.split() for line in said.splitlines() if line.startswith(self.device)]

    def use(self, budget_s: float = 0.3, **options: Any) -> dict[str, str]:
        """Let disk_manager have it; its summary and its log."""
        settings = {"ResourceDisk." + name: value for name, value in options.items()}
        order = json.dumps({"disk": self.name, "options": settings, "budget_s": budget_s})
        done = self.vm.run([PYTHON, "/root/disk_floor.py", order], timeout_s=60)
        assert done.status == 0, done.stderr[-2000:]
        said: dict[str, str] = json.loads(done.stdout)
        return said

    def on_detach(self, holder: subprocess.Popen[bytes]) -> None:
        """Kill ``holder`` first."""
        self._holders.append(holder)

    def detach(self) -> None:
        """Unmount it, take it away."""
        if not self.is_attached:
            return
        self.is_attached = False
        for holder in self._holders:
            holder.kill()
            holder.wait()
        for _, point, _ in self.mounted():
            self.vm.run(["swapoff", f"{point}/swapfile"])
            self.vm.run(["umount", point])
        self.vm.run(["swapoff", self.device])
        self.vm.run(["partx", "--delete", self.device])
        self.vm.run(["sh", "-c", 'rm -f "$1"p*', "sh", self.device])
        self.vm.run(["rm", "-f", self.device, "/var/lib/waagent/resource_disk.json"])
        os.close(self._bound.descriptor)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine without a running agent, with what udev would do."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")
    folder = tmp_path_factory.mktemp("disk")
    with Machine(folder, agent=False, fabric=False, dhcp=False, sshd=False) as machine:
        for name in ("disk_floor.py", "make_nodes.py", "kill_after.py"):
            machine.write(f"/root/{name}", (HERE / name).read_bytes())
        nodes = machine.popen(
            [PYTHON, "/root/make_nodes.py"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        yield machine
        nodes.kill()
        nodes.wait()


@pytest.fixture
def swap_alone() -> Iterator[None]:
    """One test with swap at a time: /proc/swaps is the kernel's, whatever the namespace, and names
    files by their path alone.
    """
    with open(Path(tempfile.gettempdir(), "waagent-tests-swap"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def a_disk(vm: Machine, tmp_path: Path) -> Iterator[Callable[..., LoopDisk]]:
    """`a_disk(size_mib=64)`: a blank disk; it goes with the test."""
    made: list[LoopDisk] = []

    def make(size_mib: int = 64, **more: Any) -> LoopDisk:
        image = tmp_path / f"disk{len(made)}.img"
        if not image.exists():
            image.touch()
            os.truncate(image, size_mib * MIB)
        made.append(LoopDisk(vm, image, **more))
        return made[-1]

    yield make
    for disk in made:
        disk.detach()
