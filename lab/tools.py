"""The lab's way to run a tool of the development machine and to say what went wrong with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from waagent.lab.fabric.values import LabError


def run_tool(
    argv: Sequence[str | Path],
    *,
    deadline_s: float = 60.0,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> bytes:
    """stdout of ``argv``. Raises LabError when the tool is missing, fails or takes too long."""
    words = [str(word) for word in argv]
    environment = {**os.environ, "LC_ALL": "C", **(env or {})}
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            timeout=deadline_s,
            env=environment,
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(
            f"{words[0]} is missing", "this machine", f"install the package that has {words[0]}"
        ) from error
    except subprocess.TimeoutExpired as error:
        what = f"{words[0]} took more than {deadline_s:.0f} s"
        raise LabError(what, " ".join(words)[:200], "look at the load of this machine") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-600:]
        raise LabError(
            f"{words[0]} ended with {done.returncode}",
            " ".join(words)[:200],
            said or "it said nothing",
        )
    return done.stdout


def checkout() -> Path:
    """The folder that holds the rooms. Raises LabError when the lab runs from an installed
    package.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "setup.cfg").exists():
        raise LabError(
            "the machine needs a checkout to build the agent from",
            str(root),
            "run it in a clone of the repository",
        )
    return root


def cache() -> Path:
    """Where prepared layers and fetched packages are kept."""
    folder = checkout() / ".cache"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket address (107 bytes), valid inside the block."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
