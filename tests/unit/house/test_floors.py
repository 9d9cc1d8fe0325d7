"""The house stands as designed: imports run downwards, files and functions stay small, each folder
is a package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("protocol", "distro", "workers", "supervisor", "lab")
FLOOR = {room: floor for floor, room in enumerate(ROOMS)}
PEOPLES_COMMANDS = ("commands", "ps")
CORE_MAY_IMPORT = (
    "waagent.__version__",
    "waagent.supervisor",
    "waagent.distro",
    "waagent.protocol.control",
    "waagent.protocol.state_table",
    "waagent.protocol.exit_codes",
    "waagent.protocol.worker_start",
    "waagent.protocol.configuration",
    "waagent.protocol.base.records",
    "waagent.protocol.base.backoff",
    "waagent.protocol.base.errors",
)
FILE_LIMIT, FUNCTION_LIMIT = 500, 60


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of ours that a file names in an import, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name)
                for alias in node.names
                if alias.name.split(".")[0] == "waagent"
            )
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "waagent"
        ):
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", sources(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]

    upwards = [
        f"{line}: {module}"
        for line, module in imported(path)
        if room_of(module) in FLOOR and FLOOR[room_of(module)] > FLOOR[own]
    ]

    assert upwards == []


@pytest.mark.parametrize("path", sources("workers"), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_worker_imports_another(path: Path) -> None:
    own = path.relative_to(ROOT).parts[1]
    neighbours = {
        folder.name
        for folder in (ROOT / "workers").iterdir()
        if folder.is_dir() and folder.name != own
    }

    crossings = [
        module
        for _, module in imported(path)
        if module.split(".")[1:2] == ["workers"]
        and module.split(".")[2:3]
        and module.split(".")[2] in neighbours
    ]

    assert crossings == []


@pytest.mark.parametrize(
    "path", sources("supervisor"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_core_knows_only_control_configuration_and_distro(path: Path) -> None:
    if path.parent.name in PEOPLES_COMMANDS:
        return

    strange = [
        module
        for _, module in imported(path)
        if module not in ("waagent", "waagent.protocol") and not module.startswith(CORE_MAY_IMPORT)
    ]

    assert strange == []


@pytest.mark.parametrize("path", sources("distro"), ids=lambda path: str(path.relative_to(ROOT)))
def test_distro_needs_the_standard_library_only(path: Path) -> None:
    others = {
        "msgpack",
        "zmq",
        "psutil",
        "lxml",
        "cryptography",
        "requests",
        "pycdlib",
        "passlib",
        "libpass",
        "pyroute2",
    }

    nodes = list(ast.walk(ast.parse(path.read_text())))
    named = {
        alias.name.split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    named |= {
        (node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)
    }

    assert named & others == set()


@pytest.mark.parametrize("path", sources(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)

    # what is assigned at the top of a file is a table: facts, a row each, however many there are
    in_tables = sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
    )
    functions = [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]

    assert text.count("\n") - in_tables <= FILE_LIMIT
    assert [
        node.name for node in functions if (node.end_lineno or 0) - node.lineno > FUNCTION_LIMIT
    ] == []


@pytest.mark.parametrize("path", sources(*ROOMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())

    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]

    assert ast.get_docstring(tree)
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_each_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in sources(*ROOMS)}

    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_front_door_is_links_and_three_files() -> None:
    door = ROOT / "waagent"
    if not (door / "supervisor").is_symlink():
        pytest.skip("this is an unpacked sdist: it holds folders where the checkout has links")

    found = {path.name: path.is_symlink() for path in door.iterdir() if path.name != "__pycache__"}

    assert found == {
        "__init__.py": False,
        "__main__.py": False,
        "py.typed": False,
        **{room: True for room in (*ROOMS, "etc")},
    }


def imports_at_start(path: Path) -> set[str]:
    """Modules of ours that are loaded while ``path`` is."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "waagent":
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def test_no_module_loads_itself_by_a_detour() -> None:
    modules = {
        "waagent." + ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sources(*ROOMS)
        if path.name != "__init__.py"
    }
    loads = {name: imports_at_start(path) & set(modules) for name, path in modules.items()}

    while free := [name for name, others in loads.items() if not others]:
        loads = {name: others - set(free) for name, others in loads.items() if name not in free}

    assert sorted(loads) == []
