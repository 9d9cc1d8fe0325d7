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

ECHO = """
import os
def main(worker):
    server = worker.bus.serve()
    server.on_request("echo.words", ["asker"], lambda request: {"pid": os.getpid(), "sender": request.sender, **request.body})
    server.publish("echo.pid", {"pid": os.getpid()})
    worker.supervisor.ready()
    worker.loop.run()
"""


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


@pytest.fixture
def echo(supervisor: Supervising, room: Callable[[str, str], Path]) -> Callable[[], int]:
    """Starts (again) a server that answers `echo.words` and publishes its pid; its pid."""
    code = room("echo", ECHO)

    def start() -> int:
        return supervisor.start("echo", serves=True, code=code).pid

    return start
