"""Makes the resource disk usable, gives it swap, sets the SCSI time-out; once a boot.

Asks nobody, is asked nothing. Privilege: root with SYS_ADMIN (mount, swapon, partitions) and what
reading disks takes; mkfs and its like run beside it. Nothing is written to a disk before it was
read and proved to hold nobody's data. Killed at any moment it begins again and comes to the same
end: what is half made is known by a record and made anew, never mounted.
"""

from __future__ import annotations

from collections.abc import Callable

from waagent.distro import scsi_timeouts
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError
from waagent.workers.disk_manager import blank, disk_state, find_disk
from waagent.workers.disk_manager.disk_error import DiskError
from waagent.workers.disk_manager.disk_plan import (
    Format,
    Leave,
    MountIt,
    Options,
    Reuse,
    plan_disk,
    read_options,
)
from waagent.workers.disk_manager.format_disk import (
    Formatting,
    await_node,
    forget_half_made,
    is_half_made,
)
from waagent.workers.disk_manager.mount_disk import mount_disk, write_warning
from waagent.workers.disk_manager.swap_file import MIB, Swap
from waagent.workers.runtime import Worker

APPEAR_S = 10.0  # a disk of the platform may come a moment after us
MOUNTED_BY_OTHERS_S = 60.0  # cloud-init mounts it after its own first stage
LEASE_S = 120.0
_LOOK_S = 0.5


def main(worker: Worker) -> None:
    """Say what the disk has become, whatever it is: a disk that cannot be used stops nobody."""
    worker.supervisor.ready()
    paths = worker.paths.configured(worker.configuration)
    options = read_options(worker.configuration)
    scsi_timeouts.apply(paths, worker.configuration.get("OS.RootDeviceScsiTimeout"), worker.log)
    try:
        summary = ResourceDisk(worker, paths, options).make_usable()
    except (DiskError, ToolError, OSError) as error:
        worker.log.error("resource disk: %s", error)
        summary = f"failed: {error}"
    worker.supervisor.busy(0, "")
    worker.supervisor.done(summary)


class ResourceDisk:
    """The way from a disk to a mounted one. Invariant: what is written to it was planned from what
    was read.
    """

    def __init__(
        self,
        worker: Worker,
        paths: Paths,
        options: Options,
        budget_s: float = blank.BUDGET_S,
    ) -> None:
        """``budget_s``: how long a disk may be read to prove that it is blank."""
        self._budget_s = budget_s
        self._worker, self._paths, self._options = worker, paths, options
        self._lease_ends_at = 0.0

    def make_usable(self) -> str:
        """Find, look, decide, do; the summary. Raises DiskError, ToolError, OSError."""
        worker, options = self._worker, self._options
        name = self._find()
        if name is None:
            worker.log.info("this VM has no resource disk")
            return "no resource disk"
        worker.supervisor.doing(f"looking at /dev/{name}")
        disk = disk_state.read_disk(self._paths, worker.run, name)
        plan = plan_disk(disk, options, is_half_made=is_half_made(self._paths, disk))
        if isinstance(plan, Leave):
            tell = worker.log.info if plan.is_expected else worker.log.warning
            tell("resource disk /dev/%s is left as it is: %s", name, plan.why)
            point = self._mounted_by_others(name)
        else:
            point = self._reach(disk, plan)
        if not point:
            return f"/dev/{name} left alone"
        return self._summary(point, self._swap(point))

    def _find(self) -> str | None:
        name = find_disk.find_disk(self._paths, nvme=self._options.nvme)
        if name is None and find_disk.has_vmbus(self._paths):
            self._wait_for(
                lambda: find_disk.find_disk(self._paths, nvme=self._options.nvme) is not None,
                APPEAR_S,
                "looking for the resource disk",
            )
            name = find_disk.find_disk(self._paths, nvme=self._options.nvme)
        return name

    def _reach(self, disk: disk_state.Disk, plan: Reuse | MountIt | Format) -> str:
        worker, paths = self._worker, self._paths
        if isinstance(plan, Reuse):
            forget_half_made(paths)  # who mounted it took it as it was
            worker.log.info("resource disk is mounted already at=%s", plan.mount_point)
            point = plan.mount_point
        elif isinstance(plan, MountIt):
            await_node(paths, plan.device, self._tick_quietly)
            point = mount_disk(paths, self._options, worker.run, plan.device, plan.file_system)
            worker.log.info("resource disk mounted as it was: %s at %s", plan.device, point)
        else:
            making = Formatting(paths, self._options, worker.run, worker.log, self._tick)
            device = making.carry_out(disk, plan, self._budget_s)
            kind = self._options.file_system
            point = mount_disk(paths, self._options, worker.run, device, kind)
            worker.log.info("resource disk formatted as %s and mounted at %s", kind, point)
        write_warning(point, worker.log)
        return point

    def _mounted_by_others(self, name: str) -> str:
        """Where somebody else mounts the disk: swap does not depend on Format."""
        if self._options.format or not self._options.swap_mib:
            return ""

        def mounts() -> tuple[disk_state.Mount, ...]:
            return disk_state.read_users(self._paths, name)

        self._wait_for(
            lambda: bool(mounts()), MOUNTED_BY_OTHERS_S, f"waiting for /dev/{name}'s mount"
        )
        found = mounts()
        if not found:
            self._worker.log.warning(
                "no swap: nobody mounted /dev/%s and ResourceDisk.Format is n: set it to y, or"
                " ResourceDisk.EnableSwap=n",
                name,
            )
        return found[0].point if found else ""

    def _swap(self, point: str) -> int:
        if not self._options.swap_mib:
            return 0
        swap = Swap(self._paths, point, self._worker.run, self._worker.log, self._tick)
        return swap.have(self._options.swap_mib)

    def _summary(self, point: str, swap_bytes: int) -> str:
        return f"{point}, swap {swap_bytes // MIB} MiB" if swap_bytes else point

    def _wait_for(self, is_true: Callable[[], bool], limit_s: float, what: str) -> None:
        looks = self._worker.loop.every(_LOOK_S, lambda: None)
        try:
            self._worker.wait(is_true, limit_s, what)
        finally:
            looks.cancel()

    def _tick_quietly(self) -> None:
        self._tick(self._worker.supervisor.doing_now)

    def _tick(self, what: str) -> None:
        supervisor = self._worker.supervisor
        supervisor.doing(what)
        supervisor.beat_when_due()
        now = self._worker.loop.now()
        if now > self._lease_ends_at - LEASE_S / 2:
            self._lease_ends_at = now + LEASE_S
            supervisor.busy(LEASE_S, what)
