"""Claims about the DISCOVER frame and about what counts as an answer to it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.workers.environment_monitor.dhcp import (
    DhcpError,
    DhcpReply,
    checksum,
    discover_frame,
    discover_payload,
    payload_of_frame,
    read_reply,
)

MAC = bytes.fromhex("000d3a123456")
ENDPOINT = bytes((245, 4, 168, 63, 129, 16))


def a_reply(options: bytes, *, xid: int = 7, mac: bytes = MAC, kind: int = 2, op: int = 2) -> bytes:
    payload = bytearray(discover_payload(xid, mac))
    payload[0] = op
    return bytes(payload[:240]) + bytes((53, 1, kind)) + options


def a_frame(
    payload: bytes, *, source: int = 67, target: int = 68, protocol: int = 17, fragment: int = 0
) -> bytes:
    udp = struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(udp),
        1,
        fragment,
        64,
        protocol,
        0,
        b"\x0a\0\0\1",
        b"\xff" * 4,
    )
    return b"\xff" * 6 + MAC + b"\x08\x00" + ip + udp


def test_the_discover_is_the_documented_244_bytes() -> None:
    payload = discover_payload(0x01020304, MAC)

    assert len(payload) == 244
    assert payload[:12] == bytes((1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0))
    assert payload[0x1C:0x22] == MAC
    assert payload[0xEC:] == bytes.fromhex("63825363350101ff")


def test_the_frame_is_a_broadcast_with_right_checksums() -> None:
    frame = discover_frame(1, MAC)

    ip, udp = frame[14:34], frame[34:]
    pseudo = ip[12:20] + struct.pack("!BBH", 0, 17, len(udp))
    assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x00"
    assert (checksum(ip), checksum(pseudo + udp)) == (0, 0)
    assert struct.unpack("!HHH", udp[:6]) == (68, 67, 252)


def test_option_245_behind_pads_is_found_and_end_ends() -> None:
    reply = read_reply(a_reply(b"\0\0" + ENDPOINT + b"\xff" + bytes((245, 4, 1, 2, 3, 4))), 7, MAC)

    assert reply.endpoint == "168.63.129.16"


@pytest.mark.parametrize(
    "packed", [(127, 0, 0, 1), (0, 1, 2, 3), (224, 0, 0, 1), (255, 255, 255, 255), (240, 0, 0, 1)]
)
def test_an_endpoint_that_cannot_be_one_is_none(packed: tuple[int, ...]) -> None:
    assert read_reply(a_reply(bytes((245, 4, *packed))), 7, MAC).endpoint is None


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (a_reply(ENDPOINT, xid=8), "somebody else"),
        (a_reply(ENDPOINT, mac=b"\x02" * 6), "somebody else"),
        (a_reply(ENDPOINT, op=1), "not a DHCP reply"),
        (a_reply(ENDPOINT, kind=6), "message type 06"),
        (a_reply(b"")[:242], "too short"),
        (a_reply(b"")[:236] + b"\0\0\0\0" + a_reply(b"")[240:], "not a DHCP reply"),
    ],
)
def test_what_is_no_answer_to_us_is_refused_with_its_reason(payload: bytes, says: str) -> None:
    with pytest.raises(DhcpError, match=says):
        read_reply(payload, 7, MAC)


@pytest.mark.parametrize(
    "frame",
    [
        a_frame(b"x", source=53),
        a_frame(b"x", target=69),
        a_frame(b"x", protocol=6),
        a_frame(b"x", fragment=0x2000),
        a_frame(b"x", fragment=5),
        b"",
        a_frame(b"x")[:30],
        b"\0" * 60,
    ],
)
def test_other_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(DhcpError):
        payload_of_frame(frame)


def test_a_frame_with_padding_behind_the_packet_is_read() -> None:
    assert payload_of_frame(a_frame(b"payload") + b"\0" * 20) == b"payload"


@given(st.binary(max_size=600), st.booleans())
def test_noise_is_a_reply_or_an_error_of_this_room(noise: bytes, with_head: bool) -> None:
    payload = a_reply(noise) if with_head else noise

    try:
        assert isinstance(read_reply(payload, 7, MAC), DhcpReply)
    except DhcpError:
        assert not with_head


@given(st.binary(max_size=120))
def test_any_frame_is_a_payload_or_an_error_of_this_room(noise: bytes) -> None:
    try:
        payload_of_frame(a_frame(b"")[:14] + noise)
    except DhcpError:
        return
