"""How much code runs as the supervisor, and as the zygote before a worker's own code: printed, and
bounded.

Counted: lines of code and imports; not blanks, comments and docstrings, and not tables, that is,
what is assigned at the top level of a file (the roster, events, dispatch, limits). Tables are
printed beside it, and so is what it loads from other rooms.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import waagent

ROOM = Path(waagent.__file__).parent / "supervisor"
SUPERVISOR = ("supervisor.py", "events.py", "transitions.py", "roster.py", "zygote_client.py")
CHILD = ("zygote/main.py", "zygote/worker_setup.py")


def lines_of(path: Path) -> tuple[int, int, int]:
    """Lines of code, of tables and constants, of imports."""
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    kind: dict[int, str] = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            kind.update(
                dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), "said")
            )
    for statement in tree.body:
        span = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            kind.update(dict.fromkeys(span, "table"))
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            kind.update(dict.fromkeys(span, "import"))
    numbered = ((number, line.strip()) for number, line in enumerate(source.splitlines(), start=1))
    kinds = [
        kind.get(number, "code") for number, line in numbered if line and not line.startswith("#")
    ]
    return kinds.count("code"), kinds.count("table"), kinds.count("import")


def loaded_beside() -> dict[str, int]:
    """Lines of code, tables and imports of what the supervisor's process loads from the rooms
    below.
    """
    code = (
        "import sys; import waagent.supervisor.supervisor; print(*[m.__file__ for n, m in"
        " sys.modules.items() if n.startswith('waagent.')])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    files = [Path(name) for name in said.split() if "/supervisor/" not in name]
    return {f"{file.parent.name}/{file.name}": sum(lines_of(file)) for file in files}


def by_file(names: tuple[str, ...], counts: dict[str, tuple[int, int, int]]) -> str:
    return ", ".join(f"{name} {counts[name][0] + counts[name][2]}" for name in names)


def test_the_supervisor_stays_small_enough_to_be_read(shown: Callable[[str], None]) -> None:
    counts = {name: lines_of(ROOM / name) for name in (*SUPERVISOR, *CHILD)}
    supervisor, child = (
        sum(counts[name][0] + counts[name][2] for name in names) for names in (SUPERVISOR, CHILD)
    )

    tables = sum(counts[name][1] for name in SUPERVISOR)
    shown(
        f"supervisor's process: {supervisor} lines of code and imports (limit 700), {tables} of"
        f" tables: {by_file(SUPERVISOR, counts)}"
    )
    shown(
        f"zygote and child set-up: {child} lines of code and imports (limit 300):"
        f" {by_file(CHILD, counts)}"
    )
    shown(
        "the supervisor's process loads beside it, from distro/ and protocol/:"
        f" {sum(loaded_beside().values())} lines"
    )

    assert supervisor <= 700
    assert child <= 300
