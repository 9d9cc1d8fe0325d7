"""Claims about why custom data failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.workers.provisioner.custom_data_faults import cause_of_failure


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"#!/bin/sh\r\necho\r\n", "CR LF"),
        (b"#!/bin/sh\r", "CR LF"),
        (b"echo a\r\necho b\r\n", "CR LF"),
        (b"#!/bin/sh\recho\r", "end with CR,"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "byte order mark"),
        (b"\n#!/bin/sh\n", "white space stands before"),
        (b"#!/usr/bin/zsh -e\n", "interpreter /usr/bin/zsh is not installed"),
        (b"#!\n", "names no interpreter"),
        (b"#cloud-config\npackages: []\n", "cloud-config"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x7fELF\0\0", "binary"),
        ("#!/bin/sh".encode("utf-16"), "UTF-16"),
        (b"#!/bin/sh\nexit 3\n", ""),
        (b"exit 3\n", ""),
        (b"", ""),
    ],
)
def test_the_cause_is_named(data: bytes, cause: str) -> None:
    found = cause_of_failure(data, lambda program: program == "/bin/sh")

    assert cause in found and bool(cause) is bool(found)


@given(st.binary(max_size=100))
def test_any_bytes_are_judged_without_an_error(data: bytes) -> None:
    cause_of_failure(data, lambda program: False)
