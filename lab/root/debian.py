"""Makes roots and what is laid over them, below `.cache/root`; nothing on the host changes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from waagent.lab.root import fetch
from waagent.lab.root.recipe import EMULATOR, FILES, Recipe
from waagent.lab.tools import cache, run_tool

BUILD_LIMIT_S = 1200.0
UNUSED_S = 7 * 86400
Say = Callable[[str], None]


def ensure_root(say: Say, recipe: Recipe) -> Path:
    """The folder that holds the root of ``recipe``, made when it is not there (a minute and a half
    on two processors). Nobody may write to it. Raises LabError.
    """
    place = _store() / recipe.name
    with _locked():
        if not place.exists():
            say(
                f"making the lab's Debian {recipe.suite} ({recipe.init}) from packages, once, in"
                f" .cache/root/{place.name}"
            )
            _make(place, lambda scratch: _debootstrap(recipe, scratch))
        os.utime(place)
        _sweep()
    return place


def ensure_emulator(say: Say, recipe: Recipe) -> Path:
    """The folder with QEMU, to be laid over the root of ``recipe``. Raises LabError."""
    root = ensure_root(say, recipe)
    place = _store() / f"{root.name}-emulator"
    with _locked():
        if not place.exists():
            say(f"unpacking {' '.join(EMULATOR)} into .cache/root/{place.name}")
            _make(place, lambda scratch: _unpack_emulator(recipe, root, scratch))
        os.utime(place)
    return place


def _store() -> Path:
    store = cache() / "root"
    store.mkdir(mode=0o700, exist_ok=True)  # its set-id programs are for nobody of this host
    return store


@contextmanager
def _locked() -> Iterator[None]:
    with open(_store() / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(place: Path, fill: Callable[[Path], Path]) -> None:
    with tempfile.TemporaryDirectory(dir=_store(), prefix="build-") as scratch:
        os.rename(fill(Path(scratch)), place)


def _debootstrap(recipe: Recipe, scratch: Path) -> Path:
    sources = scratch / "sources.list"
    sources.write_text(fetch.sources(recipe.suite), encoding="utf-8")
    environment = fetch.tool_path(_store() / "tools", "mmdebstrap", "mmdebstrap", "bookworm")
    root = scratch / "root"
    umask = os.umask(0o022)
    try:
        run_tool(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *recipe.words,
                *(root, sources),
            ],
            env={**environment, "TMPDIR": str(scratch)},
            deadline_s=BUILD_LIMIT_S,
        )
    finally:
        os.umask(umask)
    for name, text in FILES.items():
        (root / name).unlink(missing_ok=True)
        (root / name).write_text(text, encoding="ascii")
    for name in ("dev", "var/lib/apt/lists", "tmp", "run"):
        mode = (root / name).stat().st_mode
        shutil.rmtree(root / name)
        (root / name).mkdir()
        (root / name).chmod(mode & 0o7777)
    return root


def _unpack_emulator(recipe: Recipe, root: Path, scratch: Path) -> Path:
    packages = fetch.fetch(scratch, recipe.suite, EMULATOR, root)
    fetch.unpack(packages, scratch / "tree")
    return scratch / "tree"


def _sweep() -> None:
    """Remove what no recipe has asked for in a week, and what a killed build left."""
    for place in _store().iterdir():
        age_s = time.time() - place.stat().st_mtime
        if place.is_dir() and place.name != "tools" and age_s > UNUSED_S:
            shutil.rmtree(place)
