"""Every option of `/etc/waagent.conf`, one row each: name, type, default, range, what it does.

The seed set has the defaults of the documentation; options of the predecessor's later versions are
parsed and kept, and ``use`` says how far they are obeyed. The sample file, the man page and the
completion are made from this table. Source: spec/configuration.md, sections 3 to 5. Standard
library only: this is loaded into the supervisor.
"""

from __future__ import annotations

from typing import Union

from waagent.protocol.base.records import Record

SWITCH, NUMBER, TEXT, TRISTATE = "switch", "number", "text", "switch or auto"

SEED, IN_USE, KEPT, GONE = "seed", "in use", "kept", "gone"
"""SEED: the documented set. IN_USE: later option that is obeyed. KEPT: parsed and shown, no effect
yet. GONE: has no effect any more.
"""

Value = Union[bool, int, str, None]

SECONDS_MAX = 2**31 - 1
NAME = r"[a-z0-9_]+"
PATH = r"/[^\x00-\x1f]*"
INTERFACE = r"[^/\s]{1,15}"
HOST = r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?"


class Option(Record):
    """One option. ``lowest``/``highest`` bound a number, ``pattern`` (whole value) a text."""

    name: str
    kind: str
    default: Value
    use: str
    about: str
    """What it does, for the sample file and the manual."""
    lowest: int = 0
    highest: int = SECONDS_MAX
    pattern: str = ""
    expected: str = ""
    """What a text of that pattern is, in the words of a warning."""
    follows: str = ""
    """When absent, the value of this other option."""
    none_means_off: bool = False
    """`None` written out, or a value that cannot be used, leaves the system alone instead of
    meaning the default.
    """


def _switch(name: str, default: bool, use: str, about: str, follows: str = "") -> Option:
    return Option(name, SWITCH, default, use, about, follows=follows)


def _seconds(
    name: str, default: int, use: str, about: str, lowest: int = 5, follows: str = ""
) -> Option:
    return Option(name, NUMBER, default, use, about, lowest, follows=follows)


def _path(name: str, default: str | None, use: str, about: str) -> Option:
    return Option(name, TEXT, default, use, about, pattern=PATH, expected="an absolute path")


def _text(
    name: str, default: str | None, use: str, about: str, pattern: str = "", expected: str = ""
) -> Option:
    return Option(name, TEXT, default, use, about, pattern=pattern, expected=expected)


GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "Programs that are told about role changes",
        (
            _path(
                "Role.StateConsumer",
                None,
                SEED,
                "Program that is run when the state of the role changes; its argument is Ready or"
                " Shutdown.",
            ),
            _path(
                "Role.ConfigurationConsumer",
                None,
                SEED,
                "Program that is run when a goal state brings a new role configuration; its"
                " argument is the file with it.",
            ),
            _path(
                "Role.TopologyConsumer",
                None,
                SEED,
                "Program that is run when a goal state brings a new topology; its argument is the"
                " file with it.",
            ),
        ),
    ),
    (
        "Provisioning",
        (
            _switch(
                "Provisioning.Enabled",
                True,
                SEED,
                "Provision the VM at its first boot from the boot DVD: user, key, host name. With n"
                " the image's own users and keys are kept and the DVD is ignored; where"
                " cloud-init is enabled the agent waits for it. Provisioning.Agent wins when it"
                " is present.",
            ),
            _switch(
                "Provisioning.DeleteRootPassword",
                False,
                SEED,
                "Disable the root password in /etc/shadow while provisioning.",
            ),
            _switch(
                "Provisioning.RegenerateSshHostKeyPair",
                True,
                SEED,
                "Delete the image's SSH host keys and make new ones while provisioning; with n"
                " deprovisioning keeps them as well.",
            ),
            _text(
                "Provisioning.SshHostKeyPairType",
                "rsa",
                SEED,
                "Type of the new SSH host key: rsa, ecdsa, ed25519, dsa (old sshd only), or auto"
                " for every type that sshd supports.",
                "rsa|dsa|ecdsa|ed25519|auto",
                "rsa, ecdsa, ed25519, dsa or auto",
            ),
            _switch(
                "Provisioning.MonitorHostName",
                True,
                SEED,
                "Watch the host name and publish a changed one over DHCP; this restarts the"
                " network, so connections pause briefly.",
            ),
            _switch(
                "Provisioning.DecodeCustomData", False, SEED, "Decode custom data from base64."
            ),
            _switch(
                "Provisioning.ExecuteCustomData",
                False,
                SEED,
                "Run custom data as a program once after provisioning; it is decoded first.",
            ),
            _text(
                "Provisioning.PasswordCryptId",
                "6",
                SEED,
                "Hash for passwords, as in crypt(5): 1 MD5, 2a Blowfish, 5 SHA-256, 6 SHA-512, y"
                " yescrypt.",
                "[0-9A-Za-z]{1,8}",
                "the id of a hash, such as 6",
            ),
            Option(
                "Provisioning.PasswordCryptSaltLength",
                NUMBER,
                10,
                SEED,
                "Characters of random salt for that hash, 1 to 16.",
                1,
                16,
            ),
            _text(
                "Provisioning.Agent",
                "auto",
                IN_USE,
                "Who provisions: auto (cloud-init where it is enabled, else waagent), waagent,"
                " cloud-init, or disabled.",
                "auto|waagent|cloud-init|disabled",
                "auto, waagent, cloud-init or disabled",
            ),
            _switch(
                "Provisioning.AllowResetSysUser",
                False,
                IN_USE,
                "Allow that the DVD sets the password of a system user (uid below 1000).",
            ),
            _seconds(
                "Provisioning.MonitorHostNamePeriod",
                30,
                IN_USE,
                "Seconds between two looks at the host name.",
            ),
            _seconds(
                "Provisioning.TimeLimit",
                1200,
                IN_USE,
                "Seconds for the whole of provisioning. What fails is tried again until then;"
                " afterwards extensions may repair the VM, and it is tried again at the next"
                " boot.",
            ),
            _switch(
                "Provisioning.UseCloudInit",
                False,
                GONE,
                "Not needed any more: where cloud-init is enabled it is waited for, unless"
                " Provisioning.Agent says otherwise.",
            ),
            _path(
                "DVD.MountPoint",
                "/mnt/cdrom/secure",
                IN_USE,
                "Where the boot DVD is mounted when it cannot be read without mounting.",
            ),
        ),
    ),
    (
        "Resource disk and swap",
        (
            _switch(
                "ResourceDisk.Format",
                True,
                SEED,
                "Format and mount the resource disk. With n neither is done; swap is made"
                " where somebody else mounted the disk.",
            ),
            _text(
                "ResourceDisk.Filesystem",
                "ext4",
                SEED,
                "File system of the resource disk: ext4, ext3, xfs, btrfs; ufs or ufs2 on FreeBSD.",
                NAME,
                "lower-case letters and digits, such as ext4",
            ),
            _path(
                "ResourceDisk.MountPoint",
                "/mnt/resource",
                SEED,
                "Where the resource disk is mounted. Its content is lost when the VM is moved or"
                " resized.",
            ),
            _switch(
                "ResourceDisk.EnableSwap", False, SEED, "Make a swap file on the resource disk."
            ),
            Option(
                "ResourceDisk.SwapSizeMB",
                NUMBER,
                0,
                SEED,
                "Size of that swap file in MiB.",
                0,
                2**20,
            ),
            _text(
                "ResourceDisk.MountOptions",
                None,
                IN_USE,
                "Options for mounting the resource disk, separated by commas.",
                r"[^\s\x00-\x1f]+",
                "options separated by commas, without blanks",
            ),
            _switch(
                "ResourceDisk.NVMe",
                False,
                IN_USE,
                "Take a raw NVMe temporary disk as the resource disk, where the VM has no other.",
            ),
            _switch(
                "ResourceDisk.EnableSwapEncryption", False, KEPT, "Encrypt swap (FreeBSD only)."
            ),
        ),
    ),
    (
        "Load balancer",
        (
            _switch(
                "LBProbeResponder",
                True,
                SEED,
                "Answer the load balancer's probes on the ports that the goal state names.",
            ),
        ),
    ),
    (
        "Logs",
        (
            _switch(
                "Logs.Verbose",
                False,
                SEED,
                "Write decisions and their inputs to /var/log/waagent.log, too.",
            ),
            _switch(
                "Logs.Console",
                True,
                IN_USE,
                "Until provisioned, copy the log (info and worse, at most 20 lines a boot) to"
                " /dev/console.",
            ),
            _path(
                "Logs.File", "/var/log/waagent.log", GONE, "The log is always /var/log/waagent.log."
            ),
            _switch(
                "Telemetry.Enabled",
                True,
                IN_USE,
                "Tell the platform's analysis what the agent does: starts, goal states, results of"
                " extensions; no settings, no output.",
            ),
            _switch("Logs.Collect", True, KEPT, "Collect logs for the platform now and then."),
            _seconds("Logs.CollectPeriod", 3600, KEPT, "Seconds between two collections of logs."),
        ),
    ),
    (
        "System",
        (
            Option(
                "OS.RootDeviceScsiTimeout",
                NUMBER,
                300,
                SEED,
                "Time-out in seconds for all SCSI disks. None leaves the system's value.",
                1,
                86400,
                none_means_off=True,
            ),
            _path(
                "OS.OpensslPath",
                None,
                SEED,
                "The openssl to use for certificates. None: the one found in PATH.",
            ),
            _seconds(
                "OS.RootDeviceScsiTimeoutPeriod",
                30,
                IN_USE,
                "Seconds between two looks at that time-out.",
            ),
            _path("OS.SshDir", "/etc/ssh", IN_USE, "Folder of sshd_config and of the host keys."),
            _path("OS.HomeDir", "/home", IN_USE, "Folder in which home directories are made."),
            _path(
                "OS.PasswordPath",
                "/etc/shadow",
                IN_USE,
                "File with the password hashes (/etc/master.passwd on BSD).",
            ),
            _path(
                "OS.SudoersDir",
                "/etc/sudoers.d",
                IN_USE,
                "Folder for sudo rules (/usr/local/etc/sudoers.d on FreeBSD).",
            ),
            _seconds(
                "OS.SshClientAliveInterval",
                180,
                IN_USE,
                "ClientAliveInterval written to sshd_config; 0 turns it off.",
                lowest=0,
            ),
            _switch("OS.AllowHTTP", False, KEPT, "Fall back to HTTP where Python has no TLS."),
            _switch(
                "OS.EnableFIPS",
                False,
                KEPT,
                "Export OPENSSL_FIPS=1 to the openssl that the agent runs.",
            ),
            _switch(
                "OS.EnableFirewall",
                False,
                IN_USE,
                "Let only root (and the agent) connect to the WireServer.",
            ),
            _seconds(
                "OS.EnableFirewallPeriod",
                300,
                IN_USE,
                "Seconds between two looks at those firewall rules.",
            ),
            _seconds(
                "OS.MonitorDhcpClientRestartPeriod",
                30,
                KEPT,
                "Seconds between two looks whether the DHCP client was restarted.",
            ),
            _switch(
                "OS.PersistentNetNames",
                False,
                IN_USE,
                "Keep udev's rules that tie interface names to hardware addresses.",
            ),
            _seconds(
                "OS.RemovePersistentNetRulesPeriod",
                30,
                IN_USE,
                "Seconds between two removals of those rules.",
            ),
            _text("OS.PackageExtraConfig", None, KEPT, "JSON file with extra packages."),
            _switch("OS.EnableRDMA", False, KEPT, "Set up RDMA."),
            _switch("OS.UpdateRdmaDriver", False, KEPT, "Install or upgrade the RDMA driver."),
            _switch(
                "OS.CheckRdmaDriver",
                True,
                KEPT,
                "Compare the RDMA driver with what the host asks for, and log it.",
            ),
            _text(
                "OS.RdmaRepository", None, KEPT, "URL of the package repository of the RDMA driver."
            ),
            _text(
                "Host.NdDriverVersion",
                None,
                KEPT,
                "Overrides the RDMA driver version that the host asks for.",
            ),
            _path("OS.SshdConfigPath", None, GONE, "Replaced by OS.SshDir."),
            _path(
                "Lib.Dir",
                "/var/lib/waagent",
                IN_USE,
                "Folder of the agent's state and of extensions.",
            ),
            _path(
                "Pid.File",
                "/var/run/waagent.pid",
                IN_USE,
                "File with the pid of the running agent.",
            ),
        ),
    ),
    (
        "Network",
        (
            _text(
                "HttpProxy.Host",
                None,
                SEED,
                "Proxy for extension packages and blobs, name or address without scheme; never used"
                " for the platform's own address. Needs HttpProxy.Port.",
                HOST,
                "a host name or an address, without http://",
            ),
            Option("HttpProxy.Port", NUMBER, None, SEED, "Port of that proxy.", 1, 65535),
            _text(
                "Network.Interface",
                None,
                IN_USE,
                "Interface to the platform. None: the first that is not loopback.",
                INTERFACE,
                "the name of an interface",
            ),
            _text(
                "Protocol.EndpointDiscovery",
                "dhcp",
                IN_USE,
                "How the WireServer is found: dhcp, or static for 168.63.129.16.",
                "dhcp|static",
                "dhcp or static",
            ),
            _switch(
                "Monitor.NetworkConfigurationChanges",
                False,
                KEPT,
                "Log changes of network interfaces.",
            ),
            Option(
                "DetectScvmmEnv",
                TRISTATE,
                "auto",
                IN_USE,
                "Look for System Center VMM's installer at start. auto: only on a Microsoft host"
                " without Azure's chassis tag.",
            ),
        ),
    ),
    (
        "Extensions",
        (
            _switch(
                "Extensions.Enabled",
                True,
                IN_USE,
                "Install and run VM extensions. With n goal states are still followed.",
            ),
            _seconds(
                "Extensions.GoalStatePeriod",
                6,
                IN_USE,
                "Seconds between two polls of the goal state.",
                lowest=1,
            ),
            _seconds(
                "Extensions.InitialGoalStatePeriod",
                6,
                KEPT,
                "The same before the VM is provisioned; follows Extensions.GoalStatePeriod when"
                " absent.",
                lowest=1,
                follows="Extensions.GoalStatePeriod",
            ),
            _switch(
                "Extensions.WaitForCloudInit",
                False,
                KEPT,
                "Wait for cloud-init to finish before the first extension.",
            ),
            _seconds(
                "Extensions.WaitForCloudInitTimeout",
                3600,
                KEPT,
                "Longest such wait in seconds.",
                lowest=1,
            ),
            _path("Extension.LogDir", "/var/log/azure", IN_USE, "Folder for logs of extensions."),
            _switch(
                "EnableOverProvisioning",
                True,
                IN_USE,
                "Hold extensions while the platform says that the VM is on hold.",
            ),
            _path(
                "Policy.PolicyFilePath",
                "/etc/waagent_policy.json",
                KEPT,
                "File with the policy for extensions.",
            ),
        ),
    ),
    (
        "Updates",
        (
            _switch(
                "AutoUpdate.Enabled",
                True,
                KEPT,
                "Legacy switch; see AutoUpdate.UpdateToLatestVersion.",
            ),
            _switch(
                "AutoUpdate.UpdateToLatestVersion",
                True,
                KEPT,
                "Whether the platform may update the agent; follows AutoUpdate.Enabled when"
                " absent.",
                follows="AutoUpdate.Enabled",
            ),
            _text("AutoUpdate.GAFamily", "Prod", KEPT, "Update family."),
            _seconds(
                "Autoupdate.Frequency",
                3600,
                KEPT,
                "Seconds between two looks for updates; note the lower-case u.",
            ),
        ),
    ),
    (
        "Resource limits of the predecessor",
        (
            _switch("CGroups.Enabled", True, KEPT, "Use cgroups."),
            _switch(
                "CGroups.EnforceLimits",
                True,
                GONE,
                "Limits are always enforced where the kernel can.",
            ),
            _text(
                "CGroups.Excluded",
                "customscript,runcommand",
                GONE,
                "See /etc/waagent/sandbox.d/ for limits of one extension.",
            ),
        ),
    ),
    (
        "Debugging switches of the predecessor",
        (
            _switch("Debug.CgroupLogMetrics", False, KEPT, "Log cgroup metrics."),
            _switch(
                "Debug.CgroupDisableOnProcessCheckFailure",
                True,
                KEPT,
                "Stop using cgroups when a foreign process is found in ours.",
            ),
            _switch(
                "Debug.CgroupDisableOnQuotaCheckFailure",
                True,
                KEPT,
                "Stop using cgroups when the agent is throttled.",
            ),
            _switch(
                "Debug.EnableAgentMemoryUsageCheck",
                False,
                KEPT,
                "Restart the agent above its memory quota.",
            ),
            _switch(
                "Debug.EnableFastTrack",
                True,
                IN_USE,
                "Follow goal states that the host hands out without a new incarnation.",
            ),
            _switch(
                "Debug.EnableGAVersioning",
                True,
                KEPT,
                "Take the agent version that the platform requests.",
            ),
            _switch(
                "Debug.EnableCgroupV2ResourceLimiting", True, KEPT, "Limit resources on cgroup v2."
            ),
            _switch(
                "Debug.EnableExtensionPolicy", False, KEPT, "Enforce the policy for extensions."
            ),
            _switch(
                "Debug.EnableSignatureValidation",
                False,
                KEPT,
                "Validate signatures of extension packages.",
            ),
            _switch(
                "Debug.IgnoreSignatureValidationErrors",
                True,
                KEPT,
                "Report but ignore signature errors.",
            ),
            _switch(
                "Debug.EnableRsmDowngrade", False, KEPT, "Allow requested downgrades of the agent."
            ),
            _seconds("Debug.CgroupCheckPeriod", 300, KEPT, "Seconds between two looks at cgroups."),
            Option(
                "Debug.AgentCpuQuota",
                NUMBER,
                50,
                KEPT,
                "Percent of one CPU for the agent.",
                1,
                100000,
            ),
            _seconds(
                "Debug.AgentCpuThrottledTimeThreshold",
                120,
                KEPT,
                "Seconds of throttling that count as a failure.",
                lowest=1,
            ),
            Option(
                "Debug.AgentMemoryQuota",
                NUMBER,
                31457280,
                KEPT,
                "Bytes of memory for the agent.",
                1,
                2**63 - 1,
            ),
            _seconds(
                "Debug.EtpCollectionPeriod",
                300,
                KEPT,
                "Seconds between two collections of telemetry.",
            ),
            _seconds(
                "Debug.AutoUpdateHotfixFrequency",
                14400,
                GONE,
                "Replaced by Debug.SelfUpdateHotfixFrequency.",
            ),
            _seconds(
                "Debug.AutoUpdateNormalFrequency",
                86400,
                GONE,
                "Replaced by Debug.SelfUpdateRegularFrequency.",
            ),
            _seconds(
                "Debug.SelfUpdateHotfixFrequency",
                14400,
                KEPT,
                "Seconds between two updates to a hotfix.",
            ),
            _seconds(
                "Debug.SelfUpdateRegularFrequency",
                86400,
                KEPT,
                "Seconds between two regular updates.",
            ),
            _seconds(
                "Debug.FirewallRulesLogPeriod",
                86400,
                KEPT,
                "Seconds between two log lines with the firewall rules.",
            ),
            _seconds(
                "Debug.LogCollectorInitialDelay",
                300,
                KEPT,
                "Seconds before the first collection of logs.",
                lowest=0,
            ),
        ),
    ),
)

OPTIONS: dict[str, Option] = {option.name: option for _, rows in GROUPS for option in rows}
