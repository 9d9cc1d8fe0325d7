"""How much code runs as the supervisor, and as the zygote before a worker's own code: printed, and bounded."""

from __future__ import annotations

import ast
from pathlib import Path

import waagent

ROOM = Path(waagent.__file__).parent / "supervisor"
PEOPLE = {"ps.py", "commands.py", "main.py", "screen.py", "views.py"}
CHILD = {"zygote.py", "child.py"}
SUPERVISOR = {"life.py", "events.py", "core.py", "channel.py", "spawn.py", "journal.py", "notify.py", "roster.py"}


def code_lines(path: Path) -> int:
    """Lines without blanks, comments and docstrings."""
    source = path.read_text("utf-8")
    spoken: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            spoken.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(1 for number, line in lines if line.strip() and not line.strip().startswith("#") and number not in spoken)


def test_the_supervisor_stays_small_enough_to_be_read() -> None:
    counts = {name: code_lines(ROOM / name) for name in sorted(SUPERVISOR | CHILD)}
    supervisor = sum(counts[name] for name in SUPERVISOR)
    child = sum(counts[name] for name in CHILD)

    print("".join(f"\n{count:5} {name}" for name, count in counts.items()))
    print(f"supervisor's process {supervisor} of 700, zygote and child set-up {child} of 300")

    assert supervisor <= 700
    assert child <= 300
