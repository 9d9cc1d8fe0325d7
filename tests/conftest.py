"""What all tests share: where hypothesis keeps its examples, and what some of them need."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

from waagent.supervisor.about import unreadable_for_workers

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("waagent", database=DirectoryBasedExampleDatabase(ROOT / ".cache" / "hypothesis"), deadline=None)
settings.load_profile("waagent")


@pytest.fixture
def readable_python() -> None:
    """Skips where this interpreter lies in a folder that other users cannot enter: nothing can run it under another uid."""
    obstacle = unreadable_for_workers()
    if obstacle is not None:
        pytest.skip(f"another uid cannot run this Python: {obstacle.folder}: {obstacle.problem}")
