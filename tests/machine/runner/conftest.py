"""The runner's house as a fixture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.runner.runner_house import House


@pytest.fixture()
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()
    shutil.rmtree(tmp_path, ignore_errors=True)
