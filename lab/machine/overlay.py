"""Mounts inside the lab's own mount namespaces: an overlay of prepared layers, a small /dev,
/proc.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from waagent.lab.tools import run_tool

NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
_OPTIONS = "redirect_dir=off,metacopy=off,index=off"


def mount(kind: str, source: str, target: Path | str, options: str = "") -> None:
    """mount(8) of a file system; ``kind`` "bind" binds a folder."""
    words = ["mount", "--bind"] if kind == "bind" else ["mount", "-t", kind]
    run_tool([*words, *(["-o", options] if options else []), source, target])


def tmpfs(target: Path, options: str = "mode=755") -> None:
    """Mount a tmpfs at ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    mount("tmpfs", "tmpfs", target, options)


def mount_root(target: Path, lowers: Sequence[Path], writable: Path | None) -> None:
    """An overlay of ``lowers`` (uppermost first) at ``target``; ``writable`` (on a tmpfs) takes all
    changes, None: read-only (of two layers at least).
    """
    target.mkdir(parents=True, exist_ok=True)
    options = [f"lowerdir={':'.join(map(str, lowers))}", _OPTIONS]
    if writable is not None:
        for name in ("upper", "work"):
            (writable / name).mkdir(parents=True, exist_ok=True)
            (writable / name).chmod(0o755)
        options += [f"upperdir={writable / 'upper'}", f"workdir={writable / 'work'}"]
    mount("overlay", "overlay", target, ",".join(options))


def make_dev(target: Path) -> None:
    """A /dev of its own at ``target``: nothing of the host's devices."""
    tmpfs(target)
    for name, major, minor in NODES:
        os.mknod(target / name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        (target / name).chmod(0o666)
    for name, goal in LINKS:
        (target / name).symlink_to(goal)
    (target / "pts").mkdir()
    mount("devpts", "devpts", target / "pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    (target / "ptmx").symlink_to("pts/ptmx")
    tmpfs(target / "shm", "mode=1777")
