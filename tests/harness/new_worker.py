"""The worker of CONTRIBUTING.md, added to a copy of the tree as it is told there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "greeter"
_STEP = re.compile(r"^\d+\. (.*?)\n\n   ```python\n(.*?)   ```$", re.MULTILINE | re.DOTALL)


def copy_with_worker(folder: Path) -> Path:
    """A copy of the tree in ``folder``, with the worker."""
    copy = folder / "copy"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    roster, options, topics, *files = steps()
    _add_row(copy, *roster, "ROSTER")
    _add_row(copy, *options, "GROUPS")
    _add_topic(copy, *topics)
    for name, text in files:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    argv = [sys.executable, "-m", "waagent.supervisor.commands.manual_pages"]
    subprocess.run(argv, cwd=copy, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return copy


def steps() -> list[tuple[str, str]]:
    """The steps of the section: a file's name, and what is written there."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = []
    for head, body in _STEP.findall(text[text.index("## Adding a worker") :]):
        name = re.findall(r"`([a-z_/]+\.py)`", head)[-1]
        found.append((name, textwrap.dedent(body) if "workers/" in name else _undented(body)))
    return found


def _undented(body: str) -> str:
    """``body`` without the three blanks of the list; a row keeps its own."""
    return "".join(line[3:] or "\n" for line in body.splitlines(keepends=True))


def _add_row(copy: Path, name: str, row: str, table: str) -> None:
    """``row`` as the last one of ``table``."""
    lines = (copy / name).read_text().splitlines(keepends=True)
    end = next(
        node.end_lineno
        for node in ast.parse("".join(lines)).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table
    )
    assert end is not None and lines[end - 1] == ")\n"
    lines.insert(end - 1, row)
    (copy / name).write_text("".join(lines))


def _add_topic(copy: Path, name: str, row: str) -> None:
    """``row`` below the other topics."""
    lines = (copy / name).read_text().splitlines(keepends=True)
    end = max(
        node.end_lineno or 0
        for node in ast.parse("".join(lines)).body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    lines.insert(end, row)
    (copy / name).write_text("".join(lines))
