"""A worker with one option and one topic is what CONTRIBUTING.md says it is: two files and three
rows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.harness.new_worker import copy_with_worker, steps


def test_contributing_names_two_new_files_and_a_row_of_three_tables() -> None:
    assert [name for name, _ in steps()] == [
        "supervisor/roster.py",
        "protocol/configuration/options.py",
        "protocol/bus/topics.py",
        "workers/greeter/__init__.py",
        "workers/greeter/main.py",
    ]


def test_a_tree_with_one_more_worker_passes_lint(tmp_path: Path) -> None:
    copy = copy_with_worker(tmp_path)

    linted = subprocess.run(
        ["sh", "tests/lint", str(Path(sys.executable).parent)],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert linted.returncode == 0, linted.stdout[-4000:] + linted.stderr[-2000:]
    assert "-- greeter" not in linted.stdout
