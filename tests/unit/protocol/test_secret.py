"""Secrets do not print; URLs lose what grants access."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.secret import Secret
from waagent.protocol.wire.urls import without_query


@given(st.text(min_size=4))
def test_no_way_of_printing_shows_a_secret(text: str) -> None:
    secret = Secret(text)

    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>10}",
        f"{secret}",
        "%r" % [secret],
        f"{secret}",
    ]

    assert shown == ["***", "***", "***", "***", "***", "[***]", "***"]
    assert secret.reveal() == text and type(secret.reveal()) is str


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://a.blob.core.windows.net/c/b.zip?sv=1&sig=abc%3D",
            "https://a.blob.core.windows.net/c/b.zip",
        ),
        ("https://user:word@host:8080/path#part", "https://host:8080/path"),
        ("http://host", "http://host"),
        ("host/path?sig=1", "host/path"),
        ("", ""),
        ("?sig=1", ""),
        ("https://host/path@2x?q", "https://host/path@2x"),
        ("https://host?u=a@b/c", "https://host"),
    ],
)
def test_a_url_is_shown_without_what_grants_access(url: str, shown: str) -> None:
    assert without_query(url) == shown


@given(st.text(), st.text())
def test_nothing_of_a_query_is_left(path: str, query: str) -> None:
    assert "?" not in without_query(f"https://host/{path}?{query}")
