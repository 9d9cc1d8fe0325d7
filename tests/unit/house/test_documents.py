"""Documents name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMED = re.compile(r"`((?:supervisor|workers|protocol|distro|lab|tests|docs|bench)/[\w./-]+\.\w+)`")
EXAMPLE = "workers/greeter/"  # of CONTRIBUTING.md; not there, on purpose


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_is_there(path: Path) -> None:
    named = [name for name in NAMED.findall(path.read_text()) if not name.startswith(EXAMPLE)]
    links = re.findall(r"\]\(([\w./-]+)\)", path.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [link for link in links if not (path.parent / link).exists()] == []
