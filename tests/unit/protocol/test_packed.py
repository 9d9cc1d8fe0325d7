"""What is looked through and found good, msgpack takes; what it would refuse is found bad before it
sees it.
"""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol import control
from waagent.protocol.base.packed import Limits, verify

LIMITS = Limits(text_bytes=1000, binary_bytes=1000)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=70)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=8), inner, max_size=20)
    ),
    max_leaves=60,
)


DAMAGED = st.builds(
    lambda value, at, damage: msgpack.packb(value)[:at] + damage,
    PLAIN,
    st.integers(0, 50),
    st.binary(max_size=20),
)


@given(PLAIN)
def test_every_plain_value_is_good(value: Any) -> None:
    verify(msgpack.packb(value), LIMITS)
    verify(msgpack.packb(1.5, use_single_float=True), LIMITS)


@given(st.binary(max_size=200) | DAMAGED)
def test_what_is_good_unpacks_and_what_does_not_unpack_is_bad(data: bytes) -> None:
    try:
        msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
        unpacks = True
    except (ValueError, msgpack.UnpackException):
        unpacks = False
    try:
        verify(data, LIMITS)
    except ValueError:
        return

    assert unpacks


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is cut off"),
        (b"\x92\x01", "it is cut off"),
        (b"\x01\x01", "something follows"),
        (b"\xcd\x01", "it is cut off"),
        (b"\xdc\x0f\xff" * 1300, "it is cut off"),
        (b"\x91" * 40 + b"\x01", "deeper than 32"),
        (b"\xc1", "an extension type"),
        (b"\xd6\xff\0\0\0\0", "an extension type"),
        (b"\x81\x01\x01", "a key is not text"),
        (b"\x81\xc4\x01a\x01", "a key is not text"),
        (b"\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000, "983040 values, limit 4096"),
        (b"\xa2\xff\xfe", "utf-8"),
        (b"\xdc\x00\xf0" + (b"\xdc\x0f\xff" + b"\x80" * 0xFFF) * 0xF0, "more than 65536 values"),
        (b"\xda\x04\x00" + b"a" * 1024, "text of 1024 bytes, limit 1000"),
        (b"\xde\x04\x01", "1025 values, limit 1024"),
    ],
)
def test_bad_data_is_named(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        verify(data, LIMITS)


def test_bad_packets_on_the_control_socket_leave_nothing_behind() -> None:
    packets = [
        b"\x81\xa1x" + b"\xdc\x0f\xff" * 1300,
        b"\x81\xa1x" + b"\x91" * 900,
        b"\x81\xa1x\xdc\x0f\xff" + b"\x80" * 4000,
    ]

    def resident_kib() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4

    before_kib = resident_kib()
    for packet in packets * 200:
        with pytest.raises(control.ControlError):
            control.unpack(packet)

    assert resident_kib() - before_kib < 20 * 1024
