"""A supervisor's stand-in in a root of its own, short enough for Unix sockets, and rooms written in
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

from tests.harness.supervisor_stand_in import StandIn


@pytest.fixture
def supervisor() -> Iterator[StandIn]:
    root = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    with StandIn(root) as stand_in:
        yield stand_in
    shutil.rmtree(root)


@pytest.fixture
def room(supervisor: StandIn) -> Callable[[str, str], Path]:
    """Writes the text of a worker's main into the root."""

    def write(name: str, text: str) -> Path:
        path = supervisor.paths.root / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        return path

    return write
