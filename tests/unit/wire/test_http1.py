"""The HTTP reader: whole answers only, however they are cut, and never more than the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.http1 import AnswerReader, build_request

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer:"
    b" z\r\n\r\n"
)
UNTIL_END = b"HTTP/1.0 200\r\n\r\nhello"


def read(data: bytes, cut: int = 1 << 20, limit_bytes: int = 1024):
    reader = AnswerReader("goal state", limit_bytes=limit_bytes)
    for start in range(0, len(data), cut):
        answer = reader.feed(data[start : start + cut])
        if answer is not None:
            return answer
    return reader.end()


@pytest.mark.parametrize(
    "data",
    [
        LENGTH,
        CHUNKED,
        UNTIL_END,
        b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH,
        LENGTH.replace(b"\r\n", b"\n"),
    ],
)
@pytest.mark.parametrize("cut", [1, 2, 7, 1000])
def test_is_read_whole_however_it_is_cut(data: bytes, cut: int) -> None:
    answer = read(data, cut)

    assert (answer.status, answer.body) == (200, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage that is not HTTP at all\r\n\r\n",
        LENGTH[:-1],
        CHUNKED[:-8],
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    ],
)
def test_is_an_error_that_names_the_document(data: bytes) -> None:
    with pytest.raises(DocumentError, match="goal state"):
        read(data)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 52428800\r\n\r\n",
        b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1000000\r\n",
    ],
)
def test_more_than_the_limit_is_refused_with_and_without_its_length(head: bytes) -> None:
    reader = AnswerReader("goal state", limit_bytes=1024)

    with pytest.raises(DocumentError, match="limit is 1024"):
        reader.feed(b"HTTP/1.1 200 OK\r\n" + head + b"x" * 2048)


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
    ]
)


@given(st.lists(st.one_of(st.binary(max_size=30), PIECES), max_size=12))
def test_raises_nothing_but_its_error(pieces: list[bytes]) -> None:
    reader = AnswerReader("x", limit_bytes=100)
    try:
        for piece in pieces:
            answer = reader.feed(piece)
            if answer is not None:
                break
        else:
            answer = reader.end()
    except DocumentError:
        return
    assert len(answer.body) <= 100


def test_the_target_goes_out_byte_for_byte() -> None:
    request = build_request(
        "GET",
        "/machine/1/a%2E%5Fb?comp=config&x=%2d",
        "168.63.129.16:80",
        {"a": "b"},
        agent="WALinuxAgent/3",
    )

    assert (
        request == b"GET /machine/1/a%2E%5Fb?comp=config&x=%2d HTTP/1.1\r\nHost:"
        b" 168.63.129.16:80\r\nConnection: close\r\nUser-Agent: WALinuxAgent/3\r\na: b\r\n\r\n"
    )


def test_a_header_cannot_be_smuggled_in() -> None:
    with pytest.raises(ValueError):
        build_request("GET", "/", "h", {"a": "b\r\nc: d"}, agent="x")
