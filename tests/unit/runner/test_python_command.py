"""A command `python`, only where there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

from waagent.workers.extension_runner.python_command import with_python


def a_system(folder: Path, *names: str) -> dict[str, str]:
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {name}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_system_without_python_gets_one(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()

    environment = with_python(a_system(tmp_path / "bin", "python3"), tmp_path)

    said = subprocess.run(
        ["/bin/sh", "-c", "python"], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout == "python3\n"


def test_the_system_s_own_python_stays(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    before = a_system(tmp_path / "bin", "python", "python3")

    assert with_python(before, tmp_path) == before
