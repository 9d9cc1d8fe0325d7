"""Makes the helpers of this folder importable, and a root that an unprivileged worker can reach."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def root() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root: workers change their uid")
    folder = Path(tempfile.mkdtemp(prefix="waagent-root-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
