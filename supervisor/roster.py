"""The workers, one row each. Adding a worker = one row here and one folder in `workers/`."""

from __future__ import annotations

from typing import NamedTuple

RESIDENT, ONESHOT, ONDEMAND = "resident", "oneshot", "ondemand"
UNPRIVILEGED, ROOT = "unprivileged", "root"


class Account(NamedTuple):
    """A uid of one worker; the number serves where the account does not exist."""

    name: str
    number: int


WAAGENT = Account("waagent", 64510)
PROBE = Account("waagent-probe", 64511)
BUS_GROUP = Account("waagent-bus", 64512)
ROOT_ACCOUNT = Account("root", 0)


class Row(NamedTuple):
    """What the supervisor must know of a worker before it starts it."""

    name: str
    kind: str
    """resident: always; oneshot: once per boot; ondemand: while somebody wants it."""
    privilege: str
    account: Account
    capabilities: tuple[str, ...]
    """All that is kept in the effective and permitted sets."""
    memory_mib: int
    pids: int
    nofile: int
    serves: bool
    """The supervisor binds /run/waagent/bus/<name> for it."""
    wants: tuple[str, ...] = ()
    """Whom it may ask the supervisor to start."""
    after: tuple[str, ...] = ()
    """One-shots that must be DONE before it starts."""
    changes_system: bool = False
    """Never replaced while a process of it is stuck."""
    writes: tuple[str, ...] = ()
    """Folders an unprivileged worker may write (landlock), root prefix not included."""
    beat_s: float = 10.0
    beat_limit_s: float = 35.0
    switch: str = ""
    """Option of waagent.conf that turns it OFF when it is n."""
    keys: tuple[str, ...] = ()
    """Options, or prefixes ending in a dot, that go with `configure`."""


_SYSTEM = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "KILL", "SYS_ADMIN", "SYS_RESOURCE", "SYS_CHROOT", "FSETID")

ROSTER: tuple[Row, ...] = (
    Row("environment_monitor", RESIDENT, ROOT, ROOT_ACCOUNT, ("NET_RAW", "NET_ADMIN", "NET_BIND_SERVICE", "DAC_OVERRIDE", "SYS_ADMIN"), 96, 64, 256, True,
        keys=("Provisioning.MonitorHostName", "Provisioning.MonitorHostNamePeriod", "Protocol.EndpointDiscovery", "OS.", "Network.Interface", "Lib.Dir", "Logs.Verbose")),
    Row("fabric_client", RESIDENT, UNPRIVILEGED, WAAGENT, (), 64, 64, 256, True,
        wants=("probe_responder", "extension_runner", "certificate_keeper"), writes=("/var/cache/waagent",),
        keys=("HttpProxy.", "OS.AllowHTTP", "Extensions.", "Protocol.", "AutoUpdate.", "Logs.Verbose")),
    Row("certificate_keeper", ONDEMAND, ROOT, ROOT_ACCOUNT, ("DAC_OVERRIDE", "CHOWN", "FOWNER"), 96, 32, 128, True, changes_system=True,
        keys=("OS.OpensslPath", "OS.EnableFIPS", "Lib.Dir", "Logs.Verbose")),
    Row("provisioner", ONESHOT, ROOT, ROOT_ACCOUNT, _SYSTEM, 96, 64, 256, False, changes_system=True,
        keys=("Provisioning.", "DVD.MountPoint", "OS.", "Lib.Dir", "Logs.Verbose", "Network.Interface")),
    Row("extension_runner", ONDEMAND, ROOT, ROOT_ACCOUNT, _SYSTEM, 96, 64, 512, False, after=("provisioner",), changes_system=True,
        keys=("Extensions.", "Extension.LogDir", "Policy.", "EnableOverProvisioning", "Lib.Dir", "Logs.Verbose", "HttpProxy.", "Debug.")),
    Row("probe_responder", ONDEMAND, UNPRIVILEGED, PROBE, (), 32, 16, 1024, False, beat_s=5.0, beat_limit_s=12.0,
        switch="LBProbeResponder", keys=("LBProbeResponder", "Network.Interface", "Logs.Verbose")),
)
