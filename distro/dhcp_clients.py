"""Who asks for the address of an interface, how it is made to send another host name, and how it is
asked to renew without the link going down. Standard library only.

Found by what is there (state below /run, running programs), not by the distribution's name. None of
the commands takes the link down or gives the lease back, except where nothing else exists.
Source: networkctl(1), nmcli(1), dhclient(8), dhcpcd(8), wicked(8), dhclient.conf(5), ifcfg(5).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from waagent.distro.host_name import with_setting, write_text
from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record

_DHCLIENT_CONFS = ("/etc/dhcp/dhclient.conf", "/etc/dhcp3/dhclient.conf", "/etc/dhclient.conf")
_IFCFG = "/etc/sysconfig/network-scripts/ifcfg-{interface}"
_SENDS_BY_ITSELF = re.compile(r"^\s*send\s+host-name\s*=?\s*(gethostname\(|\"?<hostname>)", re.M)
_SEND = re.compile(r"^\s*send\s+host-name\b")
_SEND_TEXT = re.compile(r"^\s*send\s+host-name\s*=?\s*\"(?!<hostname>)")
_TEXT_LIMIT_BYTES = 1024 * 1024


class Client(Record):
    """The owner of a link."""

    name: str
    renew: tuple[tuple[str, ...], ...]
    """Commands, one after the other; the last one answers for the renewal."""
    leases: tuple[str, ...] = ()
    """Patterns of files that it writes when it has a lease; empty: its command waits for it."""
    stop: tuple[str, ...] = ()
    """Ends it without giving the lease back, where only a new one reads the new name."""
    again: tuple[str, ...] = ()
    """Starts it again in the background when a renewal failed."""


def owner_of(paths: Paths, interface: str, family: str = "") -> Client | None:
    """Who asks for the address of ``interface``; None where nobody is known to."""
    index = _read(paths.under(f"/sys/class/net/{interface}/ifindex")).strip()
    if family == "freebsd":
        return Client("dhclient", (("/etc/rc.d/dhclient", "restart", interface),))
    if family == "openbsd":
        return Client("dhclient", (("/sbin/dhclient", interface),))
    if "ADMIN_STATE=configured" in _read(paths.under(f"/run/systemd/netif/links/{index}")):
        leases = (f"/run/systemd/netif/leases/{index}",)
        return Client("systemd-networkd", (("networkctl", "renew", interface),), leases)
    if "managed=" in _read(paths.under(f"/run/NetworkManager/devices/{index}")):
        leases = (f"/var/lib/NetworkManager/*-{interface}.lease",)
        return Client("NetworkManager", (("nmcli", "device", "reapply", interface),), leases)
    if paths.under(f"/var/lib/wicked/lease-{interface}-dhcp-ipv4.xml").exists():
        leases = (f"/var/lib/wicked/lease-{interface}-dhcp-ipv4.xml",)
        return Client("wicked", (("wicked", "ifup", interface),), leases)
    return _by_process(paths, interface)


def _by_process(paths: Paths, interface: str) -> Client | None:
    for words in _commands(paths):
        program = os.path.basename(words[0])
        if program in ("dhclient", "dhclient3") and _is_for(words, interface):
            return _dhclient(words, interface)
        if program.startswith("dhcpcd") and _is_for(words, interface):
            leases = (f"/var/lib/dhcpcd*/*{interface}*.lease",)
            return Client("dhcpcd", (("dhcpcd", "-n", interface),), leases)
    return None


def _is_for(words: list[str], interface: str) -> bool:
    """Whether a client's command line names the interface, or none at all."""
    names = [word for word in words[1:] if re.fullmatch(r"(eth|en|wl|ib)[a-z0-9]*", word)]
    return not names or interface in names


def _dhclient(words: list[str], interface: str) -> Client:
    """It reads its configuration only when it starts: the old one is ended without a release, the
    new one asks for the same address again and goes into the background once it has it.
    """
    files = []
    for option in ("-pf", "-lf", "-cf"):
        if option in words[:-1]:
            files += [option, words[words.index(option) + 1]]
    begin = (words[0], "-4", *files)
    return Client(
        "dhclient",
        ((*begin, "-1", interface),),
        stop=(words[0], "-4", *files, "-x", interface),
        again=(*begin, "-nw", interface),
    )


def _commands(paths: Paths) -> list[list[str]]:
    """The words of every running program."""
    found = []
    folder = paths.under("/proc")
    try:
        names = sorted(name for name in os.listdir(folder) if name.isdigit())
    except OSError:
        return []
    for name in names:
        words = _read(folder / name / "cmdline").split("\0")[:-1]
        if words:
            found.append(words)
    return found


def write_name(paths: Paths, interface: str, name: str) -> list[str]:
    """Have DHCP clients send ``name`` from their next start on; the files that were changed. A file
    that is not there is not made. Raises OSError.
    """
    changed = []
    for path in _DHCLIENT_CONFS:
        file = paths.under(path)
        text = _read(file)
        if not file.is_file():
            continue
        if _SENDS_BY_ITSELF.search(text):
            break
        wanted = with_sent_name(text, name)
        if wanted != text:
            write_text(file, wanted)
            changed.append(str(file))
    file = paths.under(_IFCFG.format(interface=interface))
    if file.is_file():
        wanted = with_setting(_read(file), "DHCP_HOSTNAME", name)
        if wanted != _read(file):
            write_text(file, wanted)
            changed.append(str(file))
    return changed


def forget_name(paths: Paths) -> None:
    """Take the name of this VM out of what `write_name` writes. Raises OSError."""
    for path in _DHCLIENT_CONFS:
        file = paths.under(path)
        text = _read(file)
        kept = [line for line in text.splitlines() if not _SEND_TEXT.match(line)]
        if len(kept) != len(text.splitlines()):
            write_text(file, "".join(line + "\n" for line in kept))
    for file in sorted(paths.under("/etc/sysconfig/network-scripts").glob("ifcfg-*")):
        text = _read(file)
        kept = [line for line in text.splitlines() if not line.startswith("DHCP_HOSTNAME=")]
        if len(kept) != len(text.splitlines()):
            write_text(file, "".join(line + "\n" for line in kept))


def with_sent_name(text: str, name: str) -> str:
    """The text of dhclient.conf that sends ``name`` and no other."""
    others = [line for line in text.splitlines() if not _SEND.match(line)]
    return "".join(line + "\n" for line in (f'send host-name "{name}";', *others))


def _read(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(_TEXT_LIMIT_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
