"""The WireServer's address in the lease files of DHCP clients. Pure but for the one function that
reads files.

Source: spec/wire.md §1.3 with its Rule: limits, colon hex with or without leading zeros, quoted
text, plain hex.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from waagent.workers.environment_monitor.dhcp import usable_endpoint

LIMIT_BYTES = 1024 * 1024
LIMIT_LINES = 4096
DHCLIENT_FILES = (
    # Debian and Ubuntu; Red Hat 6, later ones, NetworkManager; BSD
    "var/lib/dhcp/dhclient.*.leases",
    "var/lib/dhclient/dhclient-*.leases",
    "var/lib/dhclient/dhclient-*.lease",
    "var/lib/NetworkManager/dhclient-*.lease",
    "var/db/dhclient.leases.*",
)
NETWORKD_FILES = ("run/systemd/netif/leases/*",)
_FILES_LIMIT = 64
_OPTION = re.compile(r"^option\s+(?:unknown-245|option-245|private-245|wireserver)\s+(.+?);?\s*$")
_EXPIRE = re.compile(
    r"^expire\s+(?:(never)|epoch\s+(\d{1,12})|\d\s+(\d{4})/(\d{1,2})/(\d{1,2})\s+(\d{1,2}):(\d{1,2}):(\d{1,2}))\s*(?:UTC\s*)?;",
)
_COLON_HEX = re.compile(r"[0-9A-Fa-f]{1,2}(?::[0-9A-Fa-f]{1,2}){3}\Z")
_PLAIN_HEX = re.compile(r"[0-9A-Fa-f]{8}\Z")


def endpoint_in_dhclient_leases(text: str, now_s: float) -> str | None:
    """Option 245 of the last block of a dhclient lease file that has not expired at ``now_s``
    (seconds since 1970, UTC).
    """
    answer: str | None = None
    address: str | None = None
    is_valid = False
    for line in text.splitlines()[:LIMIT_LINES]:
        line = line.strip()
        if line.startswith("lease"):
            address, is_valid = None, False
        elif line.startswith("expire"):
            is_valid = _is_in_the_future(line, now_s)
        elif line.startswith("}"):
            answer = address if is_valid and address is not None else answer
            address, is_valid = None, False
        else:
            match = _OPTION.match(line)
            address = address_of_text(match.group(1)) if match else address
    return answer


def endpoint_in_networkd_lease(text: str) -> str | None:
    """`OPTION_245=a83f8110` of a lease file of systemd-networkd; it lives in /run, so its age needs
    no test.
    """
    answer = None
    for line in text.splitlines()[:LIMIT_LINES]:
        name, separator, value = line.strip().partition("=")
        if separator and name == "OPTION_245":
            answer = address_of_text(value.strip()) or answer
    return answer


def address_of_text(value: str) -> str | None:
    """The address in one of the forms that clients write, or None when it is none or cannot be a
    WireServer's.
    """
    packed = _packed(value.strip())
    return usable_endpoint(packed) if packed is not None else None


def endpoint_below(root: Path, now_s: float) -> tuple[str, Path] | None:
    """The last usable address in the lease files of all clients we know, and where it stood."""
    dhclient = [path for pattern in DHCLIENT_FILES for path in root.glob(pattern)]
    networkd = [path for pattern in NETWORKD_FILES for path in root.glob(pattern)]
    return endpoint_in_lease_files(dhclient, networkd, now_s)


def endpoint_in_lease_files(
    dhclient: Iterable[Path], networkd: Iterable[Path], now_s: float
) -> tuple[str, Path] | None:
    """The last usable address in those files, and where it stood; unreadable and too large files
    are passed over.
    """
    found: tuple[str, Path] | None = None
    for path in sorted(dhclient)[:_FILES_LIMIT]:
        address = endpoint_in_dhclient_leases(_text(path), now_s)
        found = (address, path) if address is not None else found
    for path in sorted(networkd)[:_FILES_LIMIT]:
        address = endpoint_in_networkd_lease(_text(path))
        found = (address, path) if address is not None else found
    return found


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError:
        return ""  # no lease that we may read: the next way of discovery is tried
    return data.decode("utf-8", "replace") if len(data) <= LIMIT_BYTES else ""


def _packed(value: str) -> bytes | None:
    if _COLON_HEX.match(value):
        return bytes(int(part, 16) for part in value.split(":"))
    if _PLAIN_HEX.match(value):
        return bytes.fromhex(value)
    if len(value) >= 6 and value[0] == value[-1] == '"':
        try:
            inner = re.sub(r"\\(.)", r"\1", value[1:-1]).encode("latin-1")
        except UnicodeEncodeError:
            return None
        return inner if len(inner) == 4 else None
    return None


def _is_in_the_future(line: str, now_s: float) -> bool:
    from datetime import datetime, timezone  # 0.3 MiB, only where dhclient is

    match = _EXPIRE.match(line)
    if match is None:
        return False
    if match.group(1):
        return True
    if match.group(2):
        return int(match.group(2)) > now_s
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[2:])
    try:
        return (
            datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()
            > now_s
        )
    except ValueError:
        return False
