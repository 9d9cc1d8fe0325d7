"""The sockets of discovery: a raw one per interface for DHCP, and one TCP connection to the fixed
address. None waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from waagent.workers.environment_monitor import dhcp
from waagent.workers.environment_monitor.network import Interface

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_FRAMES_PER_TURN = 32

# Only UDP to port 68, so that a busy interface does not wake us: (code, jump if true, jump if
# false, value)
_FILTER = (
    (0x28, 0, 0, 12),  # half word: Ethernet type
    (0x15, 0, 8, _ETH_P_IP),
    (0x30, 0, 0, 23),  # byte: IP protocol
    (0x15, 0, 6, socket.IPPROTO_UDP),
    (0x28, 0, 0, 20),  # half word: fragment
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14),  # length of the IP header
    (0x48, 0, 0, 16),  # half word: UDP target port
    (0x15, 0, 1, dhcp.CLIENT_PORT),
    (0x06, 0, 0, 0x40000),  # take it
    (0x06, 0, 0, 0),  # drop it
)


class DhcpSocket:
    """One interface, one transaction. Invariant: the socket is bound, filtered and non-blocking
    until `close`.
    """

    def __init__(self, interface: Interface) -> None:
        """Raises OSError when the interface has gone or raw sockets are not permitted."""
        self.interface = interface
        self.transaction_id = struct.unpack("!I", os.urandom(4))[0]
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0
        )
        try:
            _attach_filter(self._socket)
            self._socket.bind((interface.name, _ETH_P_IP))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def discover(self) -> None:
        """Send one DISCOVER. Raises OSError."""
        self._socket.send(dhcp.discover_frame(self.transaction_id, self.interface.mac))

    def replies(self) -> tuple[list[dhcp.DhcpReply], list[str]]:
        """What has come: the answers to us, and why the other frames were none."""
        found: list[dhcp.DhcpReply] = []
        refused: list[str] = []
        for _ in range(_FRAMES_PER_TURN):
            try:
                frame, sender = self._socket.recvfrom(2048)
            except BlockingIOError:
                break
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            try:
                found.append(
                    dhcp.read_reply(
                        dhcp.payload_of_frame(frame), self.transaction_id, self.interface.mac
                    )
                )
            except dhcp.DhcpError as error:
                refused.append(str(error))
        return found, refused

    def close(self) -> None:
        self._socket.close()


class FixedAddressProbe:
    """Whether somebody takes a TCP connection at an address and port."""

    def __init__(self, address: str, port: int = 80) -> None:
        """Raises OSError when the address cannot be reached at all."""
        self._socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            self._socket.connect((address, port))
        except BlockingIOError:
            pass  # under way: writable when it is decided
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def outcome(self) -> str:
        """Empty when the connection stands, else why not."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return "" if code == 0 else f"{errno.errorcode.get(code, str(code))}"

    def close(self) -> None:
        self._socket.close()


def _attach_filter(raw: socket.socket) -> None:
    import ctypes  # 2 ms; only while the endpoint is searched

    program = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    buffer = ctypes.create_string_buffer(program)
    raw.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HL", len(_FILTER), ctypes.addressof(buffer)),
    )
