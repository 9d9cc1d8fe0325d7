"""The prepared layers below a machine's root: the lab's Debian, the agent's environment, then the
agent itself.

Each is a folder below `.cache`, named by a hash of what it is made of, made once, in a mount
namespace: pip runs in a chroot of that Debian, so nothing of the host matters or changes.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from waagent.lab.root.debian import ensure_root
from waagent.lab.root.recipe import Recipe
from waagent.lab.tools import cache, checkout, run_tool

RECIPE = 6
"""Counts up when build.py makes something else of the same input."""
ROOMS = ("supervisor", "workers", "protocol", "distro", "lab", "etc", "waagent")
FILES = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")
BUILDERS = ("setuptools>=61", "wheel")
KEPT_ENVIRONMENTS, KEPT_AGENTS = 3, 4
IN_USE_S = 2 * 3600.0
"""A layer asked for more recently may be below a machine that still runs."""
BUILD_LIMIT_S = 600.0
ROOT = Recipe()
"""What every machine is made of."""
_PYTHON = "3.11"  # of Debian 12
_GLIBC = (17, 24, 26, 27, 28, 31, 34, 35)

Say = Callable[[str], None]


def ensure(say: Say, with_agent: bool = True) -> list[Path]:
    """The folders of a machine's lower layers, uppermost first; builds what is missing and tells
    ``say`` about it. Raises LabError.
    """
    root = ensure_root(say, ROOT)
    store = cache() / "machine"
    store.mkdir(mode=0o700, exist_ok=True)
    with open(store / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = _ensure_environment(say, store, root)
        if not with_agent:
            return [environment, root]
        return [_ensure_agent(say, store, [environment, root]), environment, root]


def _ensure_environment(say: Say, store: Path, root: Path) -> Path:
    wanted = [*requirements(), *BUILDERS]
    digest = _digest(text.encode() for text in (str(RECIPE), root.name, *wanted))
    place = store / f"environment-{digest}"
    if not place.exists():
        say(f"fetching Python wheels into {cache().name}/wheels: {' '.join(wanted)}")
        fetch_wheels(_PYTHON, cache() / "wheels", wanted)
        order = {"kind": "environment", "requirements": requirements()}
        _build(order, place, [root])
        _prune(store, "environment-*", KEPT_ENVIRONMENTS)
    os.utime(place)
    return place


def _ensure_agent(say: Say, store: Path, lowers: list[Path]) -> Path:
    place = store / f"agent-{_digest([lowers[0].name.encode(), *_source_parts()])}"
    if not place.exists():
        say("building the agent's wheel and installing it for the machine")
        order = {"kind": "agent", "source": str(checkout()), "parts": [*ROOMS, *FILES]}
        _build(order, place, lowers)
        _prune(store, "agent-*", KEPT_AGENTS)
    os.utime(place)
    return place


def requirements() -> list[str]:
    """What the agent's wheel depends on."""
    parser = configparser.ConfigParser()
    parser.read(checkout() / "setup.cfg", encoding="utf-8")
    return parser["options"]["install_requires"].split()


def fetch_wheels(python: str, folder: Path, wanted: Iterable[str]) -> None:
    """Fetch ``wanted`` and what they need, built for CPython ``python`` on Debian, into ``folder``,
    with this machine's pip and its settings. Raises LabError.
    """
    kinds = [f"manylinux_2_{minor}_{platform.machine()}" for minor in _GLIBC]
    kinds.append(f"manylinux2014_{platform.machine()}")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    argv += ["--implementation", "cp", "--python-version", python]
    argv += [word for kind in kinds for word in ("--platform", kind)]
    argv += ["--find-links", str(folder), "--dest", str(folder), *wanted]
    folder.mkdir(exist_ok=True)
    run_tool(argv, deadline_s=BUILD_LIMIT_S)


def _build(order: Mapping[str, object], place: Path, lowers: list[Path]) -> None:
    whole = {
        **order,
        "lowers": [str(path) for path in lowers],
        "target": str(place),
        "wheels": str(cache() / "wheels"),
        "scratch": str(cache() / "build"),
    }
    argv = [
        *("unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child"),
        *("--propagation", "private", sys.executable, "-m", "waagent.lab.machine.build"),
    ]
    environment = {"PYTHONPATH": str(checkout()), "PYTHONDONTWRITEBYTECODE": "1"}
    run_tool([*argv, json.dumps(whole)], deadline_s=BUILD_LIMIT_S, env=environment, cwd=Path("/"))


def _source_parts() -> Iterable[bytes]:
    root = checkout()
    for part in (*ROOMS, *FILES):
        found = (
            [root / part]
            if (root / part).is_file()
            else sorted(path for path in (root / part).rglob("*") if path.is_file())
        )
        for path in found:
            if "__pycache__" not in path.parts and not path.is_symlink():
                yield str(path.relative_to(root)).encode() + b"\0" + path.read_bytes()


def _digest(parts: Iterable[bytes]) -> str:
    made = hashlib.sha256()
    for part in parts:
        made.update(hashlib.sha256(part).digest())
    return made.hexdigest()[:16]


def _prune(store: Path, pattern: str, kept: int) -> None:
    for old in sorted(store.glob(pattern), key=lambda path: path.stat().st_mtime)[:-kept]:
        if old.is_dir() and time.time() - old.stat().st_mtime > IN_USE_S:
            shutil.rmtree(old)
