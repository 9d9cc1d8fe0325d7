"""The envelope: what packs unpacks, and bytes from outside never raise anything but
EnvelopeError.
"""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.bus import envelope
from waagent.protocol.bus.bus_errors import EnvelopeError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
BODIES = st.dictionaries(st.text(max_size=8), PLAIN, max_size=5)


@given(
    kind=st.sampled_from(sorted(envelope.KINDS)),
    number=st.integers(0, 2**63 - 1),
    deadline_ms=st.integers(0, 86_400_000),
    body=BODIES,
)
def test_what_packs_unpacks(kind: str, number: int, deadline_ms: int, body: dict[str, Any]) -> None:
    message = envelope.unpack(envelope.pack(kind, number, "worker.noun", deadline_ms, body))

    assert message == envelope.Envelope(kind, number, "worker.noun", deadline_ms, body)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_envelope_or_an_error(frame: bytes) -> None:
    try:
        envelope.unpack(frame)
    except EnvelopeError:
        return


@given(st.lists(PLAIN | st.sampled_from([1, "req", "worker.noun", {}]), max_size=8) | PLAIN)
def test_any_msgpack_is_an_envelope_or_an_error(value: Any) -> None:
    try:
        frame = msgpack.packb(value)
    except OverflowError:
        return
    try:
        message = envelope.unpack(frame)
    except EnvelopeError:
        return
    assert message.kind in envelope.KINDS and isinstance(message.body, dict)


@given(st.binary(min_size=1, max_size=40), st.integers(0, 60))
def test_a_damaged_envelope_is_an_envelope_or_an_error(damage: bytes, at: int) -> None:
    frame = envelope.pack(
        "req", 7, "fabric_client.handler", 5000, {"name": "A.B", "list": [1, 2, {"x": b"y"}]}
    )
    try:
        envelope.unpack(frame[:at] + damage + frame[at + len(damage) :])
    except EnvelopeError:
        return


@pytest.mark.parametrize("version", [envelope.VERSION, envelope.VERSION - 1])
def test_this_version_and_the_one_before_are_taken(version: int) -> None:
    assert (
        envelope.unpack(msgpack.packb([version, "evt", 0, "a.b", 0, {"new_key": 1}])).version
        == version
    )


@pytest.mark.parametrize(
    "fields",
    [
        [envelope.VERSION + 1, "evt", 0, "a.b", 0, {}],
        [envelope.VERSION - 2, "evt", 0, "a.b", 0, {}],
        [True, "evt", 0, "a.b", 0, {}],
        [1, "cmd", 0, "a.b", 0, {}],
        [1, [], 0, "a.b", 0, {}],
        [1, "evt", -1, "a.b", 0, {}],
        [1, "evt", True, "a.b", 0, {}],
        [1, "evt", 0, "", 0, {}],
        [1, "evt", 0, "a\n.b", 0, {}],
        [1, "evt", 0, "a" * 129, 0, {}],
        [1, "evt", 0, b"a.b", 0, {}],
        [1, "evt", 0, "a.b", -5, {}],
        [1, "evt", 0, "a.b", 1.5, {}],
        [1, "evt", 0, "a.b", 0, []],
        [1, "evt", 0, "a.b", 0],
        [1, "evt", 0, "a.b", 0, {b"bytes": 1}],
        [1, "evt", 0, "a.b", 0, {"a": {b"bytes": 1}}],
        [1, "evt", 0, "a.b", 0, {}, 0],
        {},
        1,
        None,
        [1, "evt", 0, "a.b", 0, {"t": msgpack.Timestamp(1)}],
        [1, "evt", 0, "a.b", 0, {"e": msgpack.ExtType(5, b"")}],
    ],
)
def test_what_is_no_envelope_is_refused(fields: Any) -> None:
    with pytest.raises(EnvelopeError):
        envelope.unpack(msgpack.packb(fields))


EMPTY_MAPS = b"\x96\x01\xa3evt\x00\xa3a.b\x00\x81\xa1x"


@pytest.mark.parametrize(
    ("case", "frame"),
    [
        ("a million empty maps", EMPTY_MAPS + b"\xdd\x00\x0f\x00\x00" + b"\x80" * 0xF0000),
        (
            "nested below the limit of one array",
            EMPTY_MAPS + b"\xdc\x00\xf0" + (b"\xdc\x0f\xff" + b"\x80" * 0xFFF) * 0xF0,
        ),
        ("depth", EMPTY_MAPS + b"\x91" * 500_000),
        ("a text longer than its limit", EMPTY_MAPS + b"\xdb\x00\x08\x00\x00" + b"a" * 0x80000),
        ("a claimed size that is not there", EMPTY_MAPS + b"\xc6\xff\xff\xff\xff"),
        ("larger than a frame may be", b"\xc4" * (envelope.ENVELOPE_LIMIT_BYTES + 1)),
    ],
)
def test_an_oversized_frame_is_refused(case: str, frame: bytes) -> None:
    with pytest.raises(EnvelopeError):
        envelope.unpack(frame)


@pytest.mark.parametrize(
    "body",
    [
        {"big": "a" * (256 * 1024 + 1)},
        {"big": b"a" * (1024 * 1024)},
        {"many": list(range(4097))},
        {"what": object()},
        {"key": {1: 2}},
        {"n": 2**64},
    ],
)
def test_what_the_receiver_would_refuse_does_not_pack(body: dict[str, Any]) -> None:
    with pytest.raises(EnvelopeError) as refused:
        envelope.pack("req", 1, "worker.noun", 0, body)

    assert "worker.noun" in str(refused.value)
