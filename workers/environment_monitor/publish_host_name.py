"""A program of its own, ROOT INTERFACE NAME ADDRESS: has the DHCP client tell the network this VM's
name, and puts everything back when that fails.

A child, because a renewal may take long and environment_monitor must go on serving. Addresses,
routes and resolv.conf are remembered before; afterwards they must be the same, the client must have
a lease that is newer, and ADDRESS (the WireServer) must take a connection on port 80. Prints one
line: `published`, or `not published: ` and why.
"""

from __future__ import annotations

import glob
import json
import os
import socket
import sys
import time
from typing import Any

from waagent.distro import dhcp_clients, host_name
from waagent.distro.dhcp_clients import Client
from waagent.distro.distributions import family_of
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError, run

RENEW_LIMIT_S = 20.0
LEASE_LIMIT_S = 20.0
REACH_LIMIT_S = 5.0
_TOOL_LIMIT_S = 10.0
_LOOK_S = 0.2


class NotPublished(Exception):
    """The name is not known to the network; the text says why."""


def main() -> int:
    """Publish; exit status 0 in any case, the line says how it went."""
    root, interface, name, address = sys.argv[1:]
    try:
        publish(Paths(root), interface, name, address)
    except NotPublished as error:
        print(f"not published: {error}")
    except (OSError, ToolError) as error:
        print(f"not published: {error}")
    else:
        print("published")
    return 0


def publish(paths: Paths, interface: str, name: str, address: str) -> None:
    """Renew the lease with the new name. Raises NotPublished with everything as it was."""
    owner = dhcp_clients.owner_of(paths, interface, family_of(paths).name)
    dhcp_clients.write_name(paths, interface, name)
    host_name.resolve_locally(paths, name)
    if owner is None:
        raise NotPublished(f"nobody is known who asks for the address of {interface}")
    before = remember(paths, interface)
    begun = time.time()
    try:
        renew(paths, owner, begun)
        wait_reachable(address)
    except NotPublished:
        restore(paths, interface, before)
        if owner.again:
            run(owner.again, deadline_s=_TOOL_LIMIT_S, check=False)
        raise
    restore(paths, interface, before)


def renew(paths: Paths, owner: Client, begun: float) -> None:
    """Have the owner of the link renew, and wait until it has. Raises NotPublished."""
    try:
        if owner.stop:
            run(owner.stop, deadline_s=_TOOL_LIMIT_S, check=False)
        for argv in owner.renew:
            run(argv, deadline_s=RENEW_LIMIT_S)
    except ToolError as error:
        raise NotPublished(f"{owner.name} did not renew the lease: {error.what}") from error
    end = time.monotonic() + LEASE_LIMIT_S
    while owner.leases and not _has_newer(paths, owner.leases, begun):
        if time.monotonic() > end:
            raise NotPublished(f"{owner.name} has no new lease after {LEASE_LIMIT_S:.0f} s")
        time.sleep(_LOOK_S)


def _has_newer(paths: Paths, patterns: tuple[str, ...], begun: float) -> bool:
    return any(
        os.path.getmtime(file) >= begun - _LOOK_S
        for pattern in patterns
        for file in glob.glob(str(paths.under(pattern)))
    )


def wait_reachable(address: str) -> None:
    """Raise NotPublished unless the WireServer takes a connection."""
    if not address:
        return
    try:
        socket.create_connection((address, 80), timeout=REACH_LIMIT_S).close()
    except OSError as error:
        raise NotPublished(f"{address} does not answer any more ({error})") from error


def remember(paths: Paths, interface: str) -> dict[str, Any]:
    """Addresses, routes and resolv.conf as they are."""
    file = paths.under("/etc/resolv.conf")
    return {
        "addresses": _ip("-4", "addr", "show", "dev", interface),
        "routes": _ip("-4", "route", "show", "dev", interface),
        "resolver": file.read_text("utf-8", "surrogateescape") if file.is_file() else None,
    }


def restore(paths: Paths, interface: str, before: dict[str, Any]) -> None:
    """Put back what is missing of it; what is there stays, so that connections live."""
    now = remember(paths, interface)
    for item in _missing(_addresses(before), _addresses(now)):
        run(["ip", "addr", "add", item, "dev", interface], deadline_s=_TOOL_LIMIT_S, check=False)
    # routes to an address's own network come back with it
    for route in _missing(before["routes"], _ip("-4", "route", "show", "dev", interface)):
        argv = ["ip", "-4", "route", "replace", str(route.get("dst"))]
        for key, word in (("gateway", "via"), ("metric", "metric"), ("prefsrc", "src")):
            if key in route:
                argv += [word, str(route[key])]
        run([*argv, "dev", interface], deadline_s=_TOOL_LIMIT_S, check=False)
    if before["resolver"] and now["resolver"] != before["resolver"]:
        host_name.write_text(paths.under("/etc/resolv.conf"), before["resolver"])


def _addresses(seen: dict[str, Any]) -> list[str]:
    return [
        f"{item['local']}/{item['prefixlen']}"
        for link in seen["addresses"]
        for item in link.get("addr_info", ())
    ]


def _missing(before: list[Any], now: list[Any]) -> list[Any]:
    """Link routes first: a gateway needs the way to it."""
    gone = [item for item in before if item not in now]
    return sorted(gone, key=lambda item: isinstance(item, dict) and "gateway" in item)


def _ip(*words: str) -> list[Any]:
    try:
        said = run(["ip", "-j", *words], deadline_s=_TOOL_LIMIT_S).stdout
    except ToolError:  # not Linux, or without iproute2
        return []
    found = json.loads(said or b"[]")
    return found if isinstance(found, list) else []


if __name__ == "__main__":
    sys.exit(main())
