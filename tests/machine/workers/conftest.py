"""A supervisor for single workers, in a root of its own, short enough for Unix sockets, and rooms written in
the test.
"""

from __future__ import annotations

import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.harness.supervising import Supervising


@pytest.fixture
def supervisor(shown: Callable[[str], None]) -> Iterator[Supervising]:
    root = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    with Supervising(root, shown=shown) as made:
        yield made
    shutil.rmtree(root)


@pytest.fixture
def room(supervisor: Supervising) -> Callable[[str, str], Path]:
    """Writes the text of a worker's main into the root."""

    def write(name: str, text: str) -> Path:
        path = supervisor.paths.root / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write
