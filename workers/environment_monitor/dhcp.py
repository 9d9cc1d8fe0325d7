"""DHCP packets as the agent needs them: one DISCOVER, and the replies to it. Pure: bytes in, values
out.

Source: spec/wire.md §1.4, §1.5, §1.7 (Rule); RFC 791, 768, 2131, 2132; option 245 is the
WireServer's address.
"""

from __future__ import annotations

import socket
import struct

from waagent.protocol.base.records import Record

SERVER_PORT, CLIENT_PORT = 67, 68
PAYLOAD_BYTES = 244
REPLY_MINIMUM_BYTES = 243  # up to the first option's value
_ETHERTYPE_IP, _PROTOCOL_UDP = 0x0800, 17
_BROADCAST_MAC = b"\xff" * 6
_COOKIE = b"\x63\x82\x53\x63"
_BROADCAST_FLAG = 0x8000  # we have no address: the answer must come as a broadcast
_OPTION_PAD, _OPTION_END, _OPTION_TYPE, _OPTION_ENDPOINT = 0, 255, 53, 245
_OFFER, _ACK = 2, 5
_HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")


class DhcpError(Exception):
    """A frame that is no answer to our DISCOVER; the text says why."""


class DhcpReply(Record):
    """One OFFER or ACK, as far as the agent acts on it."""

    transaction_id: int
    endpoint: str | None
    """Option 245, the WireServer; None when the server did not send a usable one."""


def discover_payload(transaction_id: int, mac: bytes) -> bytes:
    """The 244 bytes of a DISCOVER that asks for a broadcast answer."""
    head = _HEAD.pack(
        1, 1, 6, 0, transaction_id, 0, _BROADCAST_FLAG, b"", b"", b"", b"", mac, b"", b"", _COOKIE
    )
    return head + bytes((_OPTION_TYPE, 1, 1, _OPTION_END))


def discover_frame(transaction_id: int, mac: bytes) -> bytes:
    """The DISCOVER as an Ethernet frame from 0.0.0.0:68 to 255.255.255.255:67, checksums filled
    in.
    """
    payload = discover_payload(transaction_id, mac)
    source, target = b"\0\0\0\0", b"\xff\xff\xff\xff"
    length = 8 + len(payload)
    pseudo = source + target + struct.pack("!BBH", 0, _PROTOCOL_UDP, length)
    udp = struct.pack("!HHHH", CLIENT_PORT, SERVER_PORT, length, 0)
    udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + payload) or 0xFFFF)
    ip = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0x10, 20 + length, 0, 0, 64, _PROTOCOL_UDP, 0, source, target
    )
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return _BROADCAST_MAC + mac + struct.pack("!H", _ETHERTYPE_IP) + ip + udp + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 over data that contains its own right checksum."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def payload_of_frame(frame: bytes) -> bytes:
    """The UDP payload of an Ethernet frame to port 68. Raises DhcpError for every other frame.

    A wrong UDP checksum is no reason to refuse: between a host and its own guests it is often left
    to the (virtual) card.
    """
    if len(frame) < 14 + 20 + 8 or frame[12:14] != struct.pack("!H", _ETHERTYPE_IP):
        raise DhcpError("not IPv4")
    packet = frame[14:]
    header = (packet[0] & 0x0F) * 4
    total = struct.unpack_from("!H", packet, 2)[0]
    if packet[0] >> 4 != 4 or header < 20 or total < header + 8 or total > len(packet):
        raise DhcpError("a broken IP header")
    if packet[9] != _PROTOCOL_UDP or struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
        raise DhcpError("not a whole UDP packet")
    source, target, length = struct.unpack_from("!HHH", packet, header)
    if (source, target) != (SERVER_PORT, CLIENT_PORT) or length < 8 or header + length > total:
        raise DhcpError("not from port 67 to port 68")
    return packet[header + 8 : header + length]


def read_reply(payload: bytes, transaction_id: int, mac: bytes) -> DhcpReply:
    """What ``payload`` says, when it answers our DISCOVER. Raises DhcpError, whatever ``payload``
    is.
    """
    if len(payload) < REPLY_MINIMUM_BYTES:
        raise DhcpError(f"{len(payload)} bytes, too short for a reply")
    if payload[0] != 2 or payload[236:240] != _COOKIE:
        raise DhcpError("not a DHCP reply")
    if struct.unpack_from("!I", payload, 4)[0] != transaction_id or payload[28:34] != mac:
        raise DhcpError("an answer to somebody else")
    options = _options(payload[240:])
    kind = options.get(_OPTION_TYPE, b"")
    if kind not in (bytes((_OFFER,)), bytes((_ACK,))):
        raise DhcpError(f"message type {kind.hex() or 'missing'}, not OFFER or ACK")
    return DhcpReply(transaction_id, _endpoint(options.get(_OPTION_ENDPOINT, b"")))


def usable_endpoint(packed: bytes) -> str | None:
    """The dotted address of four bytes that a WireServer may have: unicast, not loopback, not 0/8
    (spec/wire.md §1.3, Rule).
    """
    return socket.inet_ntoa(packed) if 0 < packed[0] < 224 and packed[0] != 127 else None


def _options(data: bytes) -> dict[int, bytes]:
    """Options by code; parts of one option are joined (RFC 3396); what is cut off at the end is
    left out.
    """
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        code = data[at]
        if code == _OPTION_END:
            break
        if code == _OPTION_PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            break
        found[code] = found.get(code, b"") + data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def _endpoint(value: bytes) -> str | None:
    return usable_endpoint(value) if len(value) == 4 else None
