"""What differs between distributions, as rows of a table, and how a running system finds its row.

Source: spec/platform.md §12 and its detection overrides; spec/provisioning.md §5.2, §6.5, §10.1.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from waagent.distro.os_release import read_os_release
from waagent.distro.paths import Paths

# how the host name is made to last
(
    ETC_HOSTNAME,
    HOSTNAMECTL,
    SYSCONFIG_NETWORK,
    ETC_HOSTNAME_CAPITAL,
    RC_CONF,
    ETC_MYNAME,
    CONF_D_HOSTNAME,
    UCI,
    NO_HOSTNAME,
) = (
    "/etc/hostname",
    "hostnamectl",
    "/etc/sysconfig/network",
    "/etc/HOSTNAME",
    "/etc/rc.conf",
    "/etc/myname",
    "/etc/conf.d/hostname",
    "uci",
    "",
)
_RELEASE_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Family:
    """One row: what the agent must know of a distribution."""

    name: str
    sshd_unit: str = "sshd"
    """Name of the service that systemd, or `service`, knows."""
    sshd_restart: tuple[str, ...] = ()
    """How a running sshd is told where there is no systemd; empty: SIGHUP."""
    edits_sshd: bool = True
    """Whether sshd's configuration may be changed (image-based systems keep theirs)."""
    sudo_group: str = ""
    """Group whose members may use sudo; empty where there is none by custom."""
    sudoers_folder: str = "/etc/sudoers.d"
    doas_file: str = ""
    """Where doas stands in the place of sudo: its configuration."""
    host_name: str = ETC_HOSTNAME
    create_user: tuple[str, ...] = ("useradd", "-m", "{name}")
    """`{name}` stands for the user."""
    set_password: tuple[str, ...] = ("chpasswd", "-e")
    """Takes a hash on its standard input, as the next field says."""
    set_password_stdin: str = "{name}:{hash}\n"
    make_database: tuple[str, ...] = ()
    """Where no tool takes a hash on its input: the field is written into ``shadow``, and this makes
    the database of it.
    """
    shadow: str = "/etc/shadow"
    lock_root_password: tuple[str, ...] = ()
    """The tool that does it where a file of its own makes a database."""
    delete_user: tuple[str, ...] = ("userdel", "-f", "-r", "{name}")
    """With the home folder, though the user may be logged in."""
    keep_home: tuple[str, ...] = ("userdel", "-f", "{name}")
    configuration: str = "/etc/waagent.conf"
    uid_minimum: int = 1000
    """First uid of people where login.defs does not say."""
    system_user_exception: str = ""
    """An account below the minimum that is a person's all the same."""
    packages: str = ""
    """Whose package names it uses: a key of INSTALL; empty where nobody has written them down."""


# package names -> the command that installs one
INSTALL = {
    "debian": "apt install",
    "redhat": "dnf install",
    "suse": "zypper install",
    "alpine": "apk add",
    "arch": "pacman -S",
}

#                   name           what differs from the defaults
_ROWS: tuple[Family, ...] = (
    Family("debian", packages="debian", sshd_unit="ssh", sudo_group="sudo"),
    Family("ubuntu", packages="debian", sshd_unit="ssh", sudo_group="sudo"),
    Family(
        "redhat6",
        sudo_group="wheel",
        host_name=SYSCONFIG_NETWORK,
        uid_minimum=500,
        sshd_restart=("/sbin/service", "sshd", "condrestart"),
    ),
    Family("redhat", packages="redhat", sudo_group="wheel", host_name=HOSTNAMECTL),
    Family("fedora", packages="redhat", sudo_group="wheel", edits_sshd=False),
    Family(
        "suse11",
        host_name=ETC_HOSTNAME_CAPITAL,
        sshd_restart=("/sbin/service", "sshd", "restart"),
    ),
    Family("suse", packages="suse", host_name=HOSTNAMECTL),
    Family(
        "coreos",
        sudo_group="sudo",
        edits_sshd=False,
        configuration="/usr/share/oem/waagent.conf",
        system_user_exception="core",
        create_user=("useradd", "--create-home", "--password", "*", "{name}"),
    ),
    Family("alpine", packages="alpine", edits_sshd=False),
    Family("arch", packages="arch", sudo_group="wheel", edits_sshd=False),
    Family("mariner", packages="redhat", sudo_group="wheel", edits_sshd=False),
    Family("photonos", sudo_group="wheel", edits_sshd=False),
    Family(
        "clearlinux",
        sudo_group="wheel",
        edits_sshd=False,
        configuration="/usr/share/defaults/waagent/waagent.conf",
    ),
    Family("chainguard"),
    Family("gentoo", host_name=CONF_D_HOSTNAME, sshd_restart=("/sbin/service", "sshd", "restart")),
    Family("nixos", sudo_group="wheel"),
    Family("openwrt", host_name=UCI, create_user=("useradd", "-m", "-s", "/bin/ash", "{name}")),
    Family(
        "freebsd",
        sshd_restart=("service", "sshd", "restart"),
        sudoers_folder="/usr/local/etc/sudoers.d",
        host_name=RC_CONF,
        create_user=("pw", "useradd", "{name}", "-m"),
        set_password=("pw", "usermod", "{name}", "-H", "0"),
        set_password_stdin="{hash}\n",
        shadow="/etc/master.passwd",
        lock_root_password=("pw", "usermod", "root", "-h", "-"),
        delete_user=("rmuser", "-y", "{name}"),
        keep_home=("pw", "userdel", "{name}"),
        configuration="/usr/local/etc/waagent.conf",
        uid_minimum=1001,
    ),
    Family(
        "openbsd",
        sshd_restart=("rcctl", "restart", "sshd"),
        doas_file="/etc/doas.conf",
        host_name=ETC_MYNAME,
        shadow="/etc/master.passwd",
        lock_root_password=("usermod", "-p", "*", "root"),
        make_database=("pwd_mkdb", "-p", "/etc/master.passwd"),
        delete_user=("userdel", "-r", "{name}"),
        keep_home=("userdel", "{name}"),
    ),
    Family("gaia", host_name=NO_HOSTNAME, edits_sshd=False),
    Family("bigip", host_name=NO_HOSTNAME),
    Family("iosxe", host_name=HOSTNAMECTL),
    Family("default"),
)
FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}

_BY_ID: dict[str, str] = {
    # id of os-release -> row
    "debian": "debian",
    "kali": "debian",
    "devuan": "debian",
    "raspbian": "debian",
    "linuxmint": "ubuntu",
    "ubuntu": "ubuntu",
    "rhel": "redhat",
    "redhat": "redhat",
    "centos": "redhat",
    "almalinux": "redhat",
    "rocky": "redhat",
    "ol": "redhat",
    "oracle": "redhat",
    "cloudlinux": "redhat",
    "euleros": "redhat",
    "uos": "redhat",
    "openeuler": "redhat",
    "fedora": "fedora",
    "sles": "suse",
    "sles_sap": "suse",
    "sle-micro": "suse",
    "sle_hpc": "suse",
    "suse": "suse",
    "opensuse": "suse",
    "opensuse-leap": "suse",
    "opensuse-tumbleweed": "suse",
    "coreos": "coreos",
    "flatcar": "coreos",
    "alpine": "alpine",
    "alpaquita": "alpine",
    "arch": "arch",
    "archlinux": "arch",
    "azurelinux": "mariner",
    "mariner": "mariner",
    "photon": "photonos",
    "photonos": "photonos",
    "clear-linux-os": "clearlinux",
    "clearlinux": "clearlinux",
    "chainguard": "chainguard",
    "wolfi": "chainguard",
    "gentoo": "gentoo",
    "nixos": "nixos",
    "openwrt": "openwrt",
    "freebsd": "freebsd",
    "openbsd": "openbsd",
    "gaia": "gaia",
    "f5": "bigip",
    "bigip": "bigip",
    "iosxe": "iosxe",
}

_OVERRIDES: tuple[tuple[str, str], ...] = (
    # a file that is there -> the id, whatever os-release says
    ("/etc/euleros-release", "euleros"),
    ("/etc/UnionTech-release", "uos"),
    ("/etc/mariner-release", "mariner"),
    ("/shared/vadc", "f5"),
    ("/etc/cp-release", "gaia"),
    ("/home/guestshell/azure", "iosxe"),
    ("/etc/photon-release", "photonos"),
    ("/etc/alpaquita-release", "alpaquita"),
)


@dataclass(frozen=True)
class Release:
    """Which distribution this is."""

    id: str
    version: str
    like: tuple[str, ...] = ()
    full_name: str = ""


def family_of(paths: Paths) -> Family:
    """The row of the system below ``paths``; `default` where none fits."""
    return choose_family(release_of(paths))


def choose_family(release: Release) -> Family:
    """The row for a release: by its id, else by what it says it is like."""
    for name in (release.id, *release.like):
        row = _BY_ID.get(name)
        if row is not None:
            return _by_version(row, release)
    return FAMILIES["default"]


_CAPABILITIES = {
    # what is there -> how it is called
    "/run/systemd/system": "systemd",
    "/etc/ssh/sshd_config.d": "drop-ins of sshd",
    "/etc/sudoers.d": "sudoers.d",
    "/run/systemd/netif": "systemd-networkd",
    "/run/NetworkManager": "NetworkManager",
    "/sys/fs/selinux/enforce": "SELinux",
    "/run/openrc": "OpenRC",
}


def describe_unknown(paths: Paths) -> str:
    """What the agent goes by on a distribution that no row is for."""
    release = release_of(paths)
    found = [name for path, name in _CAPABILITIES.items() if paths.under(path).exists()]
    name = f"{release.id} {release.version}".strip() or "this distribution"
    return f"{name[:60]} is not known, going by what is there: {', '.join(found) or 'files alone'}"


def sshd_unit(paths: Paths, family: Family) -> str:
    """The unit of sshd that is there: the row's, else the other usual one."""
    for name in (family.sshd_unit, "sshd", "ssh"):
        for folder in ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"):
            if paths.under(f"{folder}/{name}.service").exists():
                return name
    return family.sshd_unit


def release_of(paths: Paths) -> Release:
    """What os-release and the files of older systems say."""
    release = release_in(read_os_release(paths))
    for path, name in _OVERRIDES:
        if paths.under(path).exists():
            release = replace(release, id=name)
    if not release.id and paths.under("/etc/redhat-release").exists():
        text = _read(paths, "/etc/redhat-release")
        digits = "".join(word for word in text.split() if word[:1].isdigit())[:8]
        release = Release("redhat", digits, full_name=text.strip()[:80])
    if paths.under("/etc/oracle-release").exists():
        release = replace(release, full_name="Oracle Linux")
    return release


def release_in(values: Mapping[str, str]) -> Release:
    """The release that the assignments of os-release(5) name; an empty id when they name none."""
    return Release(
        values.get("ID", "").strip().strip("\"'").lower(),
        values.get("VERSION_ID", ""),
        tuple(values.get("ID_LIKE", "").lower().split()),
        values.get("PRETTY_NAME", ""),
    )


def _by_version(row: str, release: Release) -> Family:
    major = release.version.partition(".")[0]
    if row == "redhat" and major == "6":
        return FAMILIES["redhat6"]
    if row == "suse" and (major == "11" or (release.id == "opensuse" and release.version < "13.2")):
        return FAMILIES["suse11"]
    return FAMILIES[row]


def _read(paths: Paths, absolute: str) -> str:
    try:
        with paths.under(absolute).open("rb") as file:
            return file.read(_RELEASE_LIMIT_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
