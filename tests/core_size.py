"""How much of our code a reader of the supervisor must trust: every module of ours that its process
has loaded.

`python tests/core_size.py` prints lines per module and their sum: lines as `ruff format` at 100
columns leaves them, without blanks, comments and docstrings. `--modules` prints the modules alone.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

ENTRY = "waagent.supervisor.supervisor"
_SILENT = frozenset(
    (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    )
)


def loaded() -> dict[str, Path]:
    """The modules of ours in an interpreter that has imported the supervisor, by name."""
    argv = [sys.executable, "-I", __file__, "--modules"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    return dict((name, Path(file)) for name, file in map(str.split, said.splitlines()))


def lines_of(source: str) -> int:
    """Lines of ``source`` that hold code."""
    said: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                said.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SILENT:
            found.update(range(token.start[0], token.end[0] + 1))
    return len(found - said)


def sizes() -> dict[str, int]:
    """Lines by module."""
    return {name: lines_of(file.read_text("utf-8")) for name, file in loaded().items()}


def _print_modules() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import waagent.supervisor.supervisor  # noqa: F401 - to see what comes with it

    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "waagent":
            print(name, module.__file__)


def main() -> int:
    """Print modules, or sizes."""
    if "--modules" in sys.argv[1:]:
        _print_modules()
        return 0
    found = sizes()
    for name, lines in found.items():
        if lines:
            print(f"{lines:6} {name}")
    print(f"{sum(found.values()):6} lines in the supervisor's process, {len(found)} modules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
