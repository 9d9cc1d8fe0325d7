"""What all tests share: where hypothesis keeps its examples."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("waagent", database=DirectoryBasedExampleDatabase(ROOT / ".cache" / "hypothesis"), deadline=None)
settings.load_profile("waagent")
