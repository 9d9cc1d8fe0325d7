"""The runner's house as a fixture."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine.runner.runner_house import House


@pytest.fixture()
def house(shown: Callable[[str], None]) -> Iterator[House]:
    # a path of a Unix socket ends at 107 bytes
    root = Path(tempfile.mkdtemp(prefix="wa-", dir="/tmp"))
    made = House(root, shown)
    yield made
    made.close()
    shutil.rmtree(root, ignore_errors=True)
