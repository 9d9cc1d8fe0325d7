"""What every room needs stands in one place."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("supervisor", "workers", "protocol", "distro", "lab")
ONCE = {
    "an error with what, where and remedy": ('f"{what}: {where}: {remedy}"', "base/errors.py"),
    "the pause after so many failures": ("len(pauses_s)", "base/backoff.py"),
}


@pytest.mark.parametrize("what", sorted(ONCE))
def test_it_is_written_once(what: str) -> None:
    text, place = ONCE[what]

    found = [
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if text in path.read_text()
    ]

    assert found == [f"protocol/{place}"]
