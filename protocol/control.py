"""The supervisor's socket: how messages look on the wire. Which there are, and who may send them:
`supervisor/control_table.py`.

One `AF_UNIX SOCK_SEQPACKET` socket, one msgpack map per packet, ``{"type": NAME, ...}``, at most 64
KiB. Every send is non-blocking on both sides. The kernel says who speaks (SO_PEERCRED); a name
inside a message is never believed. To a worker go `configure` (configuration, numbers, verbose; a
log descriptor may ride along), `stop`, `log` (lines) and `stack` (worker, text).
"""

from __future__ import annotations

import socket
from typing import Any

import msgpack

if msgpack.version >= (1, 2):
    from msgpack import unpackb
else:  # the reader in C never freed what it had built of a packet that turned out bad
    from msgpack.fallback import unpackb

HANDOVER_SOCKET = "connect"  # beside the bus sockets; what is said there: protocol/wire/handover.py
PACKET_LIMIT_BYTES = 64 * 1024
HEARTBEAT_LIMIT_BYTES = 4 * 1024
FOREIGN_LIMIT_BYTES = 4 * 1024
_pack = msgpack.Packer().pack  # `msgpack.packb` asks the system for 1 MiB each time

_AT_ONCE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_CONTROL_CHARACTERS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")


class ControlError(Exception):
    """A packet that is not a message of ours; the text says what is wrong."""


def pack(kind: str, **fields: Any) -> bytes:
    """One packet. Raises ControlError when it is over the limit."""
    packet: bytes = _pack({"type": kind, **fields})
    if len(packet) > PACKET_LIMIT_BYTES:
        raise ControlError(f"{kind} has {len(packet)} bytes, limit {PACKET_LIMIT_BYTES}")
    return packet


def unpack(packet: bytes, limit_bytes: int = PACKET_LIMIT_BYTES) -> dict[str, Any]:
    """The message of one packet, its texts free of control characters. Raises ControlError.

    Nothing is kept of a packet that turns out bad. Before msgpack 1.2 its reader in Python sees
    to that: 4 KiB of nested arrays had cost the one in C 32 MiB for good.
    """
    if len(packet) > limit_bytes:
        raise ControlError(f"{len(packet)} bytes, limit {limit_bytes}")
    try:
        message = clean(unpackb(packet, max_ext_len=0))
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ControlError(f"not msgpack: {type(error).__name__}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ControlError("not a map with a type")
    return message


def clean(value: Any) -> Any:
    """``value`` with every control character in its texts replaced by a blank."""
    if isinstance(value, str):
        return value.translate(_CONTROL_CHARACTERS)
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def send(connection: socket.socket, packet: bytes, descriptors: tuple[int, ...] = ()) -> bool:
    """Send without waiting; False when it does not fit now. Raises OSError when the peer is
    gone.
    """
    try:
        if descriptors:
            socket.send_fds(connection, [packet], list(descriptors), _AT_ONCE)
        else:
            connection.send(packet, _AT_ONCE)
    except BlockingIOError:
        return False
    return True
