"""The VM's primary IPv4 address, and a sign when it may have changed. Works without /proc, which is
behind the fence.
"""

from __future__ import annotations

import socket

from waagent.protocol.wire import constants

_PLATFORM = (constants.WIRESERVER, constants.WIRE_PORT)  # probes come from there
_NETLINK_ROUTE = 0
_GROUP_IPV4_ADDRESS, _GROUP_IPV4_ROUTE = 0x10, 0x40


def primary_address() -> str | None:
    """The address that packets to the platform leave from; None while there is no way to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(_PLATFORM)
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address == "0.0.0.0" else address


def open_address_watch() -> socket.socket | None:
    """A descriptor that becomes readable when an IPv4 address or route of the VM changes; None
    where that is refused.
    """
    try:
        watch = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            _NETLINK_ROUTE,
        )
    except (OSError, AttributeError):
        return None
    try:
        watch.bind((0, _GROUP_IPV4_ADDRESS | _GROUP_IPV4_ROUTE))
    except OSError:
        watch.close()
        return None
    return watch


def drain(watch: socket.socket) -> None:
    """Read away what the kernel told; its content does not matter."""
    for _ in range(64):
        try:
            watch.recv(8192)
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: something was lost, we look at the address anyhow
