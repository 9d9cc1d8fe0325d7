"""Code runs in production as its tests see it: no stand-ins for modules, no programs in strings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("supervisor", "workers", "protocol", "distro")
SHELLS = {"/bin/sh", "SHELL"}


def files() -> Iterator[tuple[Path, str]]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text()


def test_no_module_is_faked_and_no_interpreter_patched() -> None:
    words = ("sys.modules[", "sys.modules.", "_clear_internal_caches", "_clear_type_cache")
    words += ("ModuleType(", "MADV_DONTNEED", "madvise")

    found = [f"{path}: {word}" for path, text in files() for word in words if word in text]

    assert found == []


def test_no_program_of_ours_stands_in_a_string() -> None:
    """`-c` is for the shell, whose commands the contract with handlers makes texts."""
    found = []
    for path, text in files():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.List, ast.Tuple)):
                words = [ast.unparse(word).strip("'\"") for word in node.elts]
                if "-c" in words and words[words.index("-c") - 1] not in SHELLS:
                    found.append(f"{path}:{node.lineno}")

    assert found == []


def test_our_own_python_is_started_in_one_place() -> None:
    """The shim is a program of its own, with a path that outlives an upgrade of everything else."""
    starters = [str(path) for path, text in files() if '"-I"' in text]

    assert starters == ["distro/operations/launch.py", "distro/our_python.py"]
