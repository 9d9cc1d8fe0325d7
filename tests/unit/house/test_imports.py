"""How the modules depend on each other: no circle, nothing upwards inside a room, no two files of
one name on a floor.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("protocol", "distro", "workers", "supervisor", "lab")

FLOORS_INSIDE: dict[str, tuple[tuple[str, ...], ...]] = {
    # each line may import from itself and from the lines above it
    "protocol": (("base",), ("", "configuration"), ("bus",), ("wire",), ("handler",)),
    "distro": (("", "fences", "cgroups"), ("boot", "operations")),
    "supervisor": (("", "zygote"), ("commands", "ps")),
}
"""Of each room its folders, the lowest first; "" is the room itself."""

MAY_OCCUR_AGAIN = {
    # the file that says what its folder is, and the one that runs it
    "__init__": "a package",
    "main": "what a process starts with",
    "plan": "the pure decision of a worker",
    # the words of a command line, one file for each of the two commands
    "arguments": "waagent and waagent-ps",
}
"""Names that may stand in several folders of one floor, and why."""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("waagent", *(parts[:-1] if parts[-1] == "__init__" else parts)))


FILES = {module_of(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imported(path: Path) -> Iterator[str]:
    """Modules of ours that ``path`` imports, wherever in the file, but not for type checkers
    only.
    """
    tree = ast.parse(path.read_text())
    for_checkers = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING",)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in FILES:
                    yield whole
                elif node.module in FILES:
                    yield node.module


def graph() -> dict[str, set[str]]:
    return {module: set(imported(path)) - {module} for module, path in FILES.items()}


def circle_in(edges: dict[str, set[str]]) -> list[str]:
    """The modules of one circle in their order; empty when there is none."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(edges.get(module, ())):
            found = walk(other, [*way, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := walk(module, []))), [])


def test_a_circle_is_found() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_circle_of_imports() -> None:
    assert circle_in(graph()) == []


def folder_of(module: str, room: str) -> str:
    """The folder of the room that ``module`` lies in; "" for the room itself."""
    path = FILES[module].relative_to(ROOT / room)
    return path.parts[0] if len(path.parts) > 1 else ""


@pytest.mark.parametrize("room", sorted(FLOORS_INSIDE))
def test_no_import_upwards_inside_a_room(room: str) -> None:
    floor = {folder: at for at, row in enumerate(FLOORS_INSIDE[room]) for folder in row}
    prefix = f"waagent.{room}."
    inside = {module: others for module, others in graph().items() if module.startswith(prefix)}

    upwards = [
        f"{module} -> {other}"
        for module, others in sorted(inside.items())
        for other in sorted(others)
        if other.startswith(prefix)
        and floor[folder_of(other, room)] > floor[folder_of(module, room)]
    ]

    assert upwards == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_file_name_occurs_once_on_a_floor(room: str) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / room).rglob("*.py")):
        places[path.stem].append(str(path.relative_to(ROOT)))

    twice = {
        name: where
        for name, where in places.items()
        if len(where) > 1 and name not in MAY_OCCUR_AGAIN
    }

    assert twice == {}
