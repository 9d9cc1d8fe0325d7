"""What the kernel says of interfaces and routes, read from /proc and /sys; parsing is pure."""

from __future__ import annotations

import socket
from pathlib import Path

from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record
from waagent.protocol.wire.constants import WIRESERVER

_ROUTES_LIMIT_BYTES = 1024 * 1024
_FLAG_UP, _FLAG_GATEWAY, _FLAG_LOOPBACK = 0x1, 0x2, 0x8
_ARPHRD_ETHER = "1"
_INTERFACES_LIMIT = 8  # DISCOVER is sent on no more than these at once


class Route(Record):
    """One line of /proc/net/route."""

    interface: str
    destination: str
    prefix_length: int
    gateway: str
    flags: int
    metric: int


class Interface(Record):
    """One Ethernet interface that is up."""

    name: str
    mac: bytes


def parse_routes(text: str) -> tuple[Route, ...]:
    """The routes in the text of /proc/net/route; lines of another form are left out."""
    routes = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        try:
            routes.append(
                Route(
                    fields[0],
                    _little_endian(fields[1]),
                    bin(int(fields[7], 16)).count("1"),
                    _little_endian(fields[2]),
                    int(fields[3], 16),
                    int(fields[6]),
                )
            )
        except (IndexError, ValueError, OSError):
            continue
    return tuple(routes)


def has_wireserver_route(routes: tuple[Route, ...]) -> bool:
    """Whether a route leads to exactly the WireServer's fixed address: the DHCP server of Azure
    announced it.
    """
    return any(
        route.destination == WIRESERVER and route.prefix_length == 32 and route.flags & _FLAG_UP
        for route in routes
    )


def order_interfaces(
    names: tuple[str, ...], routes: tuple[Route, ...], configured: str
) -> tuple[str, ...]:
    """Which of the interfaces to ask on: the configured one, else that of the best default route,
    else all of them.
    """
    if configured and configured in names:
        return (configured,)
    defaults = sorted(
        (route.metric, route.interface)
        for route in routes
        if route.destination == "0.0.0.0" and route.prefix_length == 0
    )
    for _, name in defaults:
        if name in names:
            return (name,)
    return names[:_INTERFACES_LIMIT]


def read_routes(paths: Paths) -> tuple[Route, ...]:
    """The IPv4 routes of this network namespace; none where the file cannot be read."""
    try:
        with paths.under("/proc/net/route").open("r", encoding="ascii", errors="replace") as file:
            return parse_routes(file.read(_ROUTES_LIMIT_BYTES))
    except OSError:
        return ()


def interfaces_to_ask(
    paths: Paths, routes: tuple[Route, ...], configured: str
) -> tuple[Interface, ...]:
    """The Ethernet interfaces that are up and on which the WireServer's address may be learnt."""
    present = {
        interface.name: interface
        for interface in _ethernet_interfaces(paths.under("/sys/class/net"))
    }
    return tuple(
        present[name] for name in order_interfaces(tuple(sorted(present)), routes, configured)
    )


def _ethernet_interfaces(folder: Path) -> list[Interface]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
    found = []
    for name in names:
        try:
            kind, flags, mac = (
                (folder / name / file).read_text("ascii").strip()
                for file in ("type", "flags", "address")
            )
            is_up = int(flags, 16) & _FLAG_UP and not int(flags, 16) & _FLAG_LOOPBACK
            if kind == _ARPHRD_ETHER and is_up and len(mac) == 17:
                found.append(Interface(name, bytes.fromhex(mac.replace(":", ""))))
        except (OSError, ValueError):
            continue  # it went away meanwhile, or is not what Linux calls Ethernet
    return found


def _little_endian(text: str) -> str:
    return socket.inet_ntoa(bytes.fromhex(text)[::-1])
