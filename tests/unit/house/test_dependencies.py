"""What setup.cfg declares is what the package imports."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODULES = {"pyzmq": "zmq", "libpass": "passlib"}
"""Of packages whose module has another name."""


def test_every_declared_dependency_is_imported() -> None:
    declared = configparser.ConfigParser()
    declared.read(ROOT / "setup.cfg")
    names = re.findall(r"^[A-Za-z0-9_-]+", declared["options"]["install_requires"], re.MULTILINE)
    imported = {
        name.split(".")[0]
        for room in ("protocol", "distro", "workers", "supervisor", "lab")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert len(names) == 8
    assert [name for name in names if MODULES.get(name, name) not in imported] == []
