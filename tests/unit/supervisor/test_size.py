"""How much code runs as the supervisor, and as the zygote before a worker's own code: printed, and bounded.

Counted: lines without blanks, comments, docstrings, and without tables, that is, constants and
tables at the top level of a file (the roster, events, dispatch); imports are no code either. All are printed beside it.
"""

from __future__ import annotations

import ast
from pathlib import Path

import waagent

ROOM = Path(waagent.__file__).parent / "supervisor"
SUPERVISOR = ("core.py", "events.py", "journal.py", "life.py", "roster.py", "spawn.py")
CHILD = ("child.py", "zygote.py")


def lines_of(path: Path) -> tuple[int, int, int]:
    """Lines of code, of tables and constants, of imports."""
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    kind: dict[int, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            kind.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), "said"))
    for statement in tree.body:
        span = range(statement.lineno, (statement.end_lineno or statement.lineno) + 1)
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            kind.update(dict.fromkeys(span, "table"))
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            kind.update(dict.fromkeys(span, "import"))
    numbered = ((number, line.strip()) for number, line in enumerate(source.splitlines(), start=1))
    kinds = [kind.get(number, "code") for number, line in numbered if line and not line.startswith("#")]
    return kinds.count("code"), kinds.count("table"), kinds.count("import")


def test_the_supervisor_stays_small_enough_to_be_read() -> None:
    counts = {name: lines_of(ROOM / name) for name in (*SUPERVISOR, *CHILD)}
    supervisor = sum(counts[name][0] for name in SUPERVISOR)
    child = sum(counts[name][0] for name in CHILD)

    print("\n  code tables imports")
    for name, (code, tables, imports) in counts.items():
        print(f"{code:6} {tables:6} {imports:7} {name}")
    whole = sum(sum(counts[name]) for name in SUPERVISOR)
    print(f"supervisor's process: {supervisor} lines of code (limit 700; {whole} with tables and imports)")
    print(f"zygote and child set-up: {child} (limit 300; {sum(sum(counts[name]) for name in CHILD)} with tables and imports)")

    assert supervisor <= 700
    assert child <= 300
