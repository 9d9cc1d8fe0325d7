"""The package holds what it should: every file of etc/, plain folders, and its build ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy, without a network: setuptools of this environment, 180 s (a custom
    `install` recursed for ever).
    """
    copy = tmp_path_factory.mktemp("checkout") / "copy"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(copy / "dist"),
        str(copy),
    ]
    built = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    if (
        "No module named 'setuptools'" in built.stderr
        or "Cannot import 'setuptools" in built.stderr
    ):
        pytest.skip("setuptools is not in this environment")
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_every_file_of_etc_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    wanted = {
        f"waagent/etc/{path.relative_to(ROOT / 'etc')}"
        for path in (ROOT / "etc").rglob("*")
        if path.is_file()
    }

    assert wanted - set(wheel.namelist()) == set()


def test_every_module_is_in_the_wheel_under_its_full_name(wheel: zipfile.ZipFile) -> None:
    rooms = ("protocol", "distro", "workers", "supervisor", "lab")
    wanted = {
        f"waagent/{path.relative_to(ROOT)}"
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
    }

    assert wanted - set(wheel.namelist()) == set()


def test_nothing_else_lands_beside_the_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == {"waagent"}
