"""What is looked at again and again for as long as the VM runs: SCSI time-outs of disks that
appear, interface names, the firewall before the WireServer. Each has its option and its period.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent.distro import interface_names, scsi_timeouts

if TYPE_CHECKING:
    from waagent.distro.firewall import Firewall
    from waagent.workers.runtime import Worker

AGENT_ACCOUNT, AGENT_UID = "waagent", 64510  # as supervisor/roster.py starts fabric_client
_PERIODS = (
    # option with the period, its default, the task
    ("OS.RootDeviceScsiTimeoutPeriod", 30, "_scsi_timeouts"),
    ("OS.RemovePersistentNetRulesPeriod", 30, "_interface_names"),
    ("OS.EnableFirewallPeriod", 300, "_firewall"),
)


class Upkeep:
    """The tasks and their timers. Invariant: a task that fails is said, and tried again."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._paths = worker.paths.configured(worker.configuration)
        self._rules: Firewall | None = None
        self._address = ""

    def begin(self) -> None:
        """Do each now, and then in its period."""
        for option, default_s, name in _PERIODS:
            task: Callable[[], None] = getattr(self, name)
            task()
            period_s = float(self._worker.configuration.get(option) or default_s)
            self._worker.loop.every(period_s, task)

    def endpoint_is(self, address: str) -> None:
        """The WireServer is there."""
        self._address = address
        self._firewall()

    def _scsi_timeouts(self) -> None:
        seconds = self._worker.configuration.get("OS.RootDeviceScsiTimeout")
        scsi_timeouts.apply(self._paths, seconds, self._worker.log)

    def _interface_names(self) -> None:
        if self._worker.configuration.get("OS.PersistentNetNames"):
            return
        try:
            changed = interface_names.release(self._paths)
        except OSError as error:
            self._worker.faults.seen(
                "interface names",
                f"udev's rules for interface names stay: {error}: none needed, tried again",
            )
            return
        for name in changed:
            self._worker.log.info("interface names are not tied to addresses any more: %s", name)

    def _firewall(self) -> None:
        is_wanted = bool(self._worker.configuration.get("OS.EnableFirewall"))
        if not is_wanted and not (self._paths.library / "firewall").exists():
            return
        # where it is used only: 0.2 MiB with what runs tools
        from waagent.distro.firewall import Firewall, try_ensure, try_remove

        log = self._worker.log
        self._rules = self._rules or Firewall(self._paths, self._worker.run, log)
        if not is_wanted:
            try_remove(self._rules, log)
        elif self._address:
            try_ensure(self._rules, self._address, _agent_uid(), log)


def _agent_uid() -> int:
    try:
        return pwd.getpwnam(AGENT_ACCOUNT).pw_uid
    except KeyError:
        return AGENT_UID
