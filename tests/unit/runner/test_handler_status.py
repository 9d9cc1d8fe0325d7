"""Status files of strangers: trap 54 of the specification, and properties."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.handler import status_file as room
from waagent.protocol.handler.handler_errors import STATUS_INVALID, StatusFileError
from waagent.protocol.handler.status_file import parse_status


def a_file(**status: Any) -> bytes:
    return json.dumps(
        [{"version": 1.0, "timestampUTC": "x", "status": {"status": "success", **status}}]
    ).encode()


def a_text(message: str) -> dict[str, str]:
    return {"lang": "en-US", "message": message}


def test_a_good_file_is_passed_on() -> None:
    data = a_file(
        name="theirs",
        operation="Enable",
        code=4,
        configurationAppliedTime="t",
        formattedMessage=a_text("done"),
        substatus=[
            {"name": "StdOut", "status": "success", "code": "0", "formattedMessage": a_text("ok")}
        ],
    )

    document = json.loads(parse_status(data).to_json("ours"))

    assert document == {
        "name": "ours",
        "operation": "Enable",
        "configurationAppliedTime": "t",
        "status": "success",
        "code": 4,
        "formattedMessage": a_text("done"),
        "substatus": [
            {"name": "StdOut", "status": "success", "code": 0, "formattedMessage": a_text("ok")}
        ],
    }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[{",
        b"{}",
        b"[]",
        b"[null]",
        b"null",
        b"[7]",
        b'[{"status": null}]',
        b'[{"status": {}}]',
        b"[" * 100000,
        a_file(formattedMessage={"message": "no lang"}),
        a_file(formattedMessage="text"),
        a_file(formattedMessage={"Lang": "x", "Message": "y"}),
        a_file(substatus={}),
        a_file(substatus=[7]),
        a_file(substatus=[{"status": "failed"}]),
        a_file(substatus=[{"name": "x"}]),
        a_file(code=float("nan")),
        b" " * (room.FILE_LIMIT_BYTES + 1),
    ],
)
def test_malformed_files_are_1012_with_a_reason(data: bytes) -> None:
    with pytest.raises(StatusFileError) as caught:
        parse_status(data)

    assert caught.value.code == STATUS_INVALID and caught.value.what


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"status": "failed"}, ("error", 0, "", 0)),
        ({"status": "Success"}, ("error", 0, "", 0)),
        ({"status": None}, ("error", 0, "", 0)),
        ({"code": "4"}, ("success", 4, "", 0)),
        ({"code": "x"}, ("success", -1, "", 0)),
        ({"code": "--4"}, ("success", -1, "", 0)),
        ({"code": None}, ("success", 0, "", 0)),
        ({"code": True}, ("success", -1, "", 0)),
        ({"code": 10**15}, ("success", -1, "", 0)),
        ({"formattedMessage": None}, ("success", 0, "", 0)),
        ({"formattedMessage": {"lang": None, "message": None}}, ("success", 0, "", 0)),
        ({"substatus": None}, ("success", 0, "", 0)),
        ({"substatus": [None, {"status": "warning"}]}, ("success", 0, "", 1)),
    ],
)
def test_sloppy_files_say_something(
    fields: dict[str, Any], expected: tuple[str, int, str, int]
) -> None:
    status = parse_status(a_file(**fields))

    assert (status.status, status.code, status.message, len(status.substatus)) == expected


def test_invalid_utf8_and_a_bom_do_not_hide_a_status() -> None:
    data = b"\xef\xbb\xbf" + a_file(formattedMessage=a_text("QQ")).replace(b"QQ", b"\xff\xfe")

    assert parse_status(data).message == "\ufffd\ufffd"


def test_a_lone_surrogate_can_be_sent_on() -> None:
    data = a_file(formattedMessage=a_text("QQ")).replace(b"QQ", b"\\ud800")

    parse_status(data).to_json("x").encode("utf-8")


def test_a_large_file_is_cut_as_the_predecessor_cuts_it() -> None:
    parts = [
        {"name": "n" * 20000, "status": "success", "formattedMessage": a_text("m" * 20000)}
        for _ in range(20)
    ]

    status = parse_status(a_file(formattedMessage=a_text("x" * 5000), substatus=parts))

    assert len(status.message) == room.LARGE_MESSAGE and status.message.endswith(room.CUT)
    assert len(status.substatus) == 6 and all(
        len(part.message) == len(part.name) == room.LARGE_SUBSTATUS_TEXT
        for part in status.substatus
    )


def test_thirty_thousand_substatus_fit_into_one_event() -> None:
    parts = [
        {"name": str(number), "status": "success", "code": 0, "formattedMessage": a_text("a")}
        for number in range(30000)
    ]

    status = parse_status(a_file(substatus=parts))

    assert (
        len(status.substatus) <= room.SUBSTATUS_LIMIT
        and len(status.to_json("x").encode()) <= room.JSON_LIMIT_BYTES
    )


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "status",
                    "code",
                    "substatus",
                    "formattedMessage",
                    "lang",
                    "message",
                    "name",
                    "operation",
                ]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(
    st.one_of(
        st.binary(max_size=200),
        _json.map(lambda value: json.dumps([{"status": value}]).encode()),
        st.dictionaries(
            st.sampled_from(["code", "substatus", "formattedMessage", "name", "operation"]), _json
        ).map(lambda fields: a_file(**fields)),
    )
)
def test_no_bytes_raise_anything_but_the_rooms_error(data: bytes) -> None:
    try:
        status = parse_status(data)
    except StatusFileError:
        return
    document = json.loads(status.to_json("x").encode("utf-8"))
    assert document["status"] in room.STATES and isinstance(document["code"], int)
