"""Lets only root and the agent connect to the WireServer: one nft table of our own, or one chain of
our own where there is only iptables. Nobody else's rules are read, moved or changed.

DNS by the same address stays open to everyone. What is ours is noted in `<lib>/firewall`, so that
it goes when the option is switched off or the agent is removed, and no program is run where it
never was switched on.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent.distro.files import make_folder, write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError, ToolNotFound

if TYPE_CHECKING:
    from waagent.protocol.base.log import Log

TABLE = CHAIN = "waagent"
MARKER = "firewall"
NFT, IPTABLES = "nft", "iptables"
_LIMIT_S = 20.0
_RULES = """\
table ip {table} {{
	chain output {{
		type filter hook output priority filter; policy accept;
		ip daddr != {address} return
		udp dport 53 return
		tcp dport 53 return
		meta skuid {{ 0, {uid} }} return
		ct state {{ invalid, new }} drop
	}}
}}
"""
# said together: one step for the kernel, in which there is always a table
_ANEW = "table ip {table} {{}}\ndelete table ip {table}\n"

Run = Callable[..., Finished]


def nft_script(address: str, uid: int) -> str:
    """What `nft -f -` is told. Raises OSError when ``address`` is no IPv4 address."""
    checked = _checked(address)
    return _ANEW.format(table=TABLE) + _RULES.format(table=TABLE, address=checked, uid=uid)


def iptables_rules(address: str, uid: int) -> list[list[str]]:
    """The rules of our chain, one argv each. Raises OSError."""
    _checked(address)
    return [
        ["-p", "udp", "--dport", "53", "-j", "RETURN"],
        ["-p", "tcp", "--dport", "53", "-j", "RETURN"],
        ["-m", "owner", "--uid-owner", "0", "-j", "RETURN"],
        ["-m", "owner", "--uid-owner", str(uid), "-j", "RETURN"],
        ["-m", "conntrack", "--ctstate", "INVALID,NEW", "-j", "DROP"],
    ]


def _checked(address: str) -> str:
    return socket.inet_ntoa(socket.inet_pton(socket.AF_INET, address))


class Firewall:
    """Our rules. Invariant: what the kernel has of them is whole or absent."""

    def __init__(self, paths: Paths, run: Run, log: Log) -> None:
        self._paths, self._run, self._log = paths, run, log
        self._marker = paths.library / MARKER
        self._listed = b""

    def ensure(self, address: str, uid: int) -> str:
        """See to it that the rules are there; what holds them, empty when nothing could. Raises
        ToolError.
        """
        try:
            return self._ensure_nft(address, uid)
        except ToolNotFound:
            return self._ensure_iptables(address, uid)

    def remove(self) -> None:
        """Take our rules away, if we ever made any. Raises ToolError, OSError."""
        if not self._marker.exists():
            return
        how, _, address = self._marker.read_text("ascii").strip().partition(" ")
        if how == NFT:
            script = _ANEW.format(table=TABLE)
            self._run(["nft", "-f", "-"], stdin=script.encode("ascii"), deadline_s=_LIMIT_S)
        else:
            for words in (
                ["-D", "OUTPUT", "-d", address, "-j", CHAIN],
                ["-F", CHAIN],
                ["-X", CHAIN],
            ):
                self._iptables(words, check=False)
        self._marker.unlink()
        self._log.info("firewall: our rules are removed")

    def _ensure_nft(self, address: str, uid: int) -> str:
        listing = ["nft", "list", "table", "ip", TABLE]
        present = self._run(listing, deadline_s=_LIMIT_S, check=False)
        if present.status == 0 and present.stdout == self._listed:
            return NFT
        self._note(NFT, address)
        script = nft_script(address, uid)
        self._run(["nft", "-f", "-"], stdin=script.encode("ascii"), deadline_s=_LIMIT_S)
        self._tell(NFT, address, bool(self._listed))
        self._listed = self._run(listing, deadline_s=_LIMIT_S).stdout
        return NFT

    def _ensure_iptables(self, address: str, uid: int) -> str:
        rules = iptables_rules(address, uid)
        jump = ["-d", address, "-j", CHAIN]
        wanted = [["-C", CHAIN, *rule] for rule in rules] + [["-C", "OUTPUT", *jump]]
        if all(self._iptables(words, check=False).status == 0 for words in wanted):
            return IPTABLES
        self._note(IPTABLES, address)
        self._iptables(["-N", CHAIN], check=False)
        self._iptables(["-F", CHAIN])
        for rule in rules:
            self._iptables(["-A", CHAIN, *rule])
        if self._iptables(["-C", "OUTPUT", *jump], check=False).status:
            self._iptables(["-A", "OUTPUT", *jump])
        self._tell(IPTABLES, address, False)
        return IPTABLES

    def _iptables(self, words: list[str], check: bool = True) -> Finished:
        argv = ["iptables", "-w", "-t", "security", *words]
        return self._run(argv, deadline_s=_LIMIT_S, check=check)

    def _note(self, how: str, address: str) -> None:
        make_folder(self._paths.library)
        write_atomic(self._marker, f"{how} {address}".encode("ascii"), mode=0o600)

    def _tell(self, how: str, address: str, again: bool) -> None:
        text = "firewall: only root and the agent connect to %s now%s by=%s"
        self._log.info(text, address, ", again" if again else "", how)


def try_ensure(firewall: Firewall, address: str, uid: int, log: Log) -> str:
    """`ensure`, and an empty text where neither program is here or the kernel refuses."""
    try:
        return firewall.ensure(address, uid)
    except (ToolError, OSError) as error:
        log.warning("firewall: %s: everyone may connect to the WireServer", error)
        return ""


def try_remove(firewall: Firewall, log: Log) -> None:
    """`remove`, and a warning where that failed: it is tried again."""
    try:
        firewall.remove()
    except (ToolError, OSError) as error:
        log.warning("firewall: our rules stay: %s", error)
