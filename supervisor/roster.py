"""The workers, one row each. Adding a worker = one row here and one folder in `workers/`."""

from __future__ import annotations

from waagent.protocol.base.records import Record
from waagent.protocol.state_table import ONDEMAND, ONESHOT, RESIDENT


class Account(Record):
    """A uid of one worker; the number serves where the account does not exist."""

    name: str
    number: int


WAAGENT = Account("waagent", 64510)
PROBE = Account("waagent-probe", 64511)
BUS_GROUP = Account("waagent-bus", 64512)
ROOT_ACCOUNT = Account("root", 0)


class Row(Record):
    """What the supervisor must know of a worker before it starts it."""

    name: str
    kind: str
    """resident: always; oneshot: once per boot; ondemand: while somebody wants it."""
    account: Account = ROOT_ACCOUNT
    """Any other one than root's: without privileges, but for its capabilities."""
    capabilities: tuple[str, ...] = ()
    """All that is kept in the effective and permitted sets."""
    memory_mib: int = 96
    pids: int = 64
    nofile: int = 256
    serves: bool = False
    """The supervisor binds /run/waagent/bus/<name> for it."""
    hands_over: bool = False
    """The supervisor binds the socket of protocol/wire/handover.py for it, too."""
    wants: tuple[str, ...] = ()
    """Whom it may ask the supervisor to start."""
    after: tuple[str, ...] = ()
    """One-shots that must be DONE before it starts."""
    changes_system: bool = False
    """Never replaced while a process of it is stuck."""
    writes: tuple[str, ...] = ()
    """Folders an unprivileged worker may write (landlock), root prefix not included."""
    tools_mib: int | None = None
    """Memory of the tools that it starts, all together."""
    beat_s: float = 10.0
    beat_limit_s: float = 35.0
    switch: str = ""
    """Option of waagent.conf that turns it OFF when it is n."""
    is_brief: bool = False
    """It runs for one answer at a time; its code is not in memory otherwise."""
    keys: tuple[str, ...] = ()
    """Options, or prefixes ending in a dot, that go with `configure`."""


_DISKS_AND_USERS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "KILL")
_SYSTEM = (*_DISKS_AND_USERS, "SYS_ADMIN", "SYS_RESOURCE", "SYS_CHROOT")
_NETWORK = ("NET_RAW", "NET_ADMIN", "NET_BIND_SERVICE", "DAC_OVERRIDE", "SYS_ADMIN")
_HOST_NAME_KEYS = ("Provisioning.MonitorHostName", "Provisioning.MonitorHostNamePeriod")
_PLATFORM_KEYS = ("HttpProxy.", "OS.AllowHTTP", "Protocol.", "AutoUpdate.", "Telemetry.Enabled")
_GOAL_KEYS = ("Extensions.", "EnableOverProvisioning", "Debug.EnableFastTrack")
_HANDLER_KEYS = ("Extensions.", "Extension.LogDir", "Policy.", "EnableOverProvisioning")
_COMMON_KEYS = ("Lib.Dir", "Logs.Verbose", "Network.Interface", "Role.")


def _once(name: str, *keys: str) -> Row:
    """A worker that changes the system as root, once a boot."""
    keys += _COMMON_KEYS
    return Row(name, ONESHOT, capabilities=_SYSTEM, changes_system=True, is_brief=True, keys=keys)


ROSTER: tuple[Row, ...] = (
    Row(
        "environment_monitor",
        RESIDENT,
        capabilities=_NETWORK,
        serves=True,
        hands_over=True,
        keys=(*_HOST_NAME_KEYS, "Protocol.EndpointDiscovery", "Logs.Console", "OS.", *_COMMON_KEYS),
    ),
    Row(
        "fabric_client",
        RESIDENT,
        WAAGENT,
        memory_mib=64,
        serves=True,
        wants=("probe_responder", "extension_runner", "certificate_keeper", "account_keeper"),
        writes=("/var/cache/waagent",),
        tools_mib=256,
        keys=(*_PLATFORM_KEYS, *_GOAL_KEYS, *_COMMON_KEYS),
    ),
    Row(
        "certificate_keeper",
        ONDEMAND,
        capabilities=("DAC_OVERRIDE", "CHOWN", "FOWNER"),
        pids=32,
        nofile=128,
        serves=True,
        changes_system=True,
        is_brief=True,
        keys=("OS.OpensslPath", "OS.EnableFIPS", *_COMMON_KEYS),
    ),
    Row(
        "account_keeper",
        ONDEMAND,
        capabilities=_DISKS_AND_USERS,
        serves=True,
        changes_system=True,
        is_brief=True,
        wants=("certificate_keeper",),
        keys=("OS.SudoersDir", *_COMMON_KEYS),
    ),
    _once("provisioner", "Provisioning.", "DVD.MountPoint", "OS."),
    _once("disk_manager", "ResourceDisk.", "OS.RootDeviceScsiTimeout"),
    _once("kernel_tuner"),
    _once("vmm_bootstrapper", "DetectScvmmEnv", "DVD.MountPoint"),
    Row(
        "extension_runner",
        ONDEMAND,
        capabilities=_SYSTEM,
        nofile=512,
        after=("provisioner",),
        changes_system=True,
        keys=(*_HANDLER_KEYS, "HttpProxy.", "Debug.", *_COMMON_KEYS),
    ),
    Row(
        "probe_responder",
        ONDEMAND,
        PROBE,
        memory_mib=32,
        pids=16,
        nofile=1024,
        beat_s=5.0,
        beat_limit_s=12.0,
        switch="LBProbeResponder",
        keys=("LBProbeResponder", *_COMMON_KEYS),
    ),
)
