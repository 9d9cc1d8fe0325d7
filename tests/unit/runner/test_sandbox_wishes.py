"""What a package and an operator ask for: understood, put together, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.workers.extension_runner.limits import parse_limits
from waagent.workers.extension_runner.sandbox_wishes import (
    Wish,
    WishError,
    read_wish,
    together,
)


def test_the_operator_is_stronger_key_by_key() -> None:
    asked = read_wish(
        {"profile": "strict", "writePaths": ["/opt/x/"], "network": True, "capabilities": ["chown"]}
    )
    operator = parse_limits(b"Network=n\nWritePaths=/srv/a, /srv/b\n", "f").wish

    wish = together(operator, asked)

    assert wish == Wish("strict", ("/srv/a", "/srv/b"), ("CHOWN",), False)


def test_an_operator_can_switch_a_package_s_sandbox_off() -> None:
    asked = read_wish({"profile": "strict", "network": False})

    assert together(parse_limits(b"Profile=default\n", "f").wish, asked).profile == "default"


@pytest.mark.parametrize("text", [b"Network=n", b"WritePaths=/opt/x", b"Capabilities=CHOWN"])
def test_a_restriction_without_strict_is_refused(text: bytes) -> None:
    with pytest.raises(WishError, match="Profile=strict"):
        together(parse_limits(text, "f").wish, Wish())


@pytest.mark.parametrize(
    "line",
    [
        "Profile=strickt",
        "Network=maybe",
        "WritePaths=opt/x",
        "WritePaths=/",
        "WritePaths=/opt/../etc",
        "WritePaths=/proc/sys",
        "WritePaths=/dev/sda",
        "Capabilities=SYS_EVERYTHING",
    ],
)
def test_a_bad_line_of_security_names_file_and_line(line: str) -> None:
    limits = parse_limits(f"# note\n{line}\n".encode(), "/etc/waagent/sandbox.d/A.B.conf")

    assert limits.refusal.startswith(f"/etc/waagent/sandbox.d/A.B.conf:2: {line}")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_a_manifest_s_wish_is_understood_or_refused(said: object) -> None:
    try:
        read_wish(said)  # type: ignore[arg-type]
    except WishError:
        return
    assert isinstance(said, dict)
