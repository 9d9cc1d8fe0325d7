"""The XML reader: what it refuses, and that it raises nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.xml import DEPTH_LIMIT, attribute, child, read_xml, text_at

LIMIT = 64 * 1024


def read(data: bytes):
    return read_xml(data, "test.xml", limit_bytes=LIMIT)


def test_a_byte_order_mark_is_skipped() -> None:
    root = read(b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?><a><b> x </b></a>")

    assert text_at(root, "b") == "x"


def test_text_and_cdata_are_joined_and_a_comment_does_not_cut_them() -> None:
    root = read(b"<a><b>one<!-- two --><![CDATA[<three>]]>\n four</b></a>")

    assert text_at(root, "b") == "one<three>\n four"


def test_namespaces_do_not_hide_elements() -> None:
    root = read(b'<a xmlns="urn:x"><b c=" 1 "/></a>')

    assert attribute(child(root, "b"), "c") == "1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef\xbb\xbf",
        b"HTTP/1.1 502",
        b"<html><body>",
        b"<a><b></a>",
        b"\xff\xfe<\x00a\x00/\x00>\x00",
        b"<a>&x;</a>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<?xml version="1.0"?><!-- c --><!DOCTYPE a SYSTEM "http://example.com/a.dtd"><a/>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        b"<a>" * (DEPTH_LIMIT + 1) + b"</a>" * (DEPTH_LIMIT + 1),
        b"<a>" + b" " * LIMIT + b"</a>",
        b"<?xml version='1.0' encoding='utf-16'?><a>\xff</a>",
    ],
)
def test_is_refused_with_the_name_of_the_document(data: bytes) -> None:
    with pytest.raises(DocumentError, match="test.xml"):
        read(data)


def test_another_root_is_named() -> None:
    with pytest.raises(DocumentError, match="'html', not 'GoalState'"):
        read_xml(b"<html/>", "goal state", limit_bytes=LIMIT, root="GoalState")


@given(
    st.one_of(
        st.binary(max_size=300),
        st.text("<>/!?[]&;ab\"'= DOCTYPENI\n", max_size=200).map(str.encode),
    )
)
def test_raises_nothing_but_its_error(data: bytes) -> None:
    try:
        read(data)
    except DocumentError:
        pass
