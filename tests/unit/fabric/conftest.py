"""A short root: paths of Unix sockets end at 107 bytes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fabric.loop_worker import LoopWorker


@pytest.fixture
def worker() -> Iterator[LoopWorker]:
    root = Path(tempfile.mkdtemp(prefix="wa-", dir="/tmp"))
    try:
        yield LoopWorker(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
