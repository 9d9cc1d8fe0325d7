"""The prepared layers below a machine's root: Debian packages and the agent's environment, then the
agent itself.

Each is a tarball below `.cache/machine/`, named by a hash of what it is made of, made once, in a
mount namespace over an overlay of `/`: apt, dpkg and pip run there, so nothing of the host changes
but `.cache`.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from waagent.lab.fabric.values import LabError
from waagent.lab.tools import run_tool

RECIPE = 4
"""Counts up when build.py makes something else of the same input."""
PACKAGES = (
    "python3",
    "python3-venv",
    "openssh-server",
    "openssh-client",
    "dnsmasq-base",
    "sudo",
    "busybox",
    "udhcpc",
    "iproute2",
    "iputils-ping",
    "openssl",
    "procps",
    "ca-certificates",
    "kmod",
)
ROOMS = ("supervisor", "workers", "protocol", "distro", "lab", "etc", "waagent")
FILES = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")
KEPT_BASES, KEPT_AGENTS = 2, 4
BUILD_LIMIT_S = 600.0

Say = Callable[[str], None]


def checkout() -> Path:
    """The folder that holds the rooms. Raises LabError when the lab runs from an installed
    package.
    """
    root = Path(__file__).resolve().parents[2]
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


def ensure(say: Say, packages: Sequence[str] = (), with_agent: bool = True) -> list[Path]:
    """The tarballs of a machine's lower layers, uppermost first; builds what is missing and tells
    ``say`` about it.
    """
    store = cache() / "machine"
    store.mkdir(exist_ok=True)
    with open(store / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = sorted({*PACKAGES, *packages})
        base = store / f"base-{_base_key(wanted)}.tar"
        if not base.exists():
            say(
                f"fetching Debian packages into {cache().name}/apt and Python wheels into"
                f" {cache().name}/wheels: {' '.join(wanted)}"
            )
            _build(
                {
                    "kind": "base",
                    "target": str(base),
                    "lowers": [],
                    "packages": wanted,
                    "requirements": requirements(),
                }
            )
            _prune(store, "base-*.tar", KEPT_BASES)
        if not with_agent:
            return [base]
        agent = store / f"agent-{_digest([base.name.encode(), *_source_parts()])}.tar"
        if not agent.exists():
            say("building the agent's wheel and installing it for the machine")
            _build(
                {
                    "kind": "agent",
                    "target": str(agent),
                    "lowers": [str(base)],
                    "source": str(checkout()),
                    "parts": [*ROOMS, *FILES],
                }
            )
            _prune(store, "agent-*.tar", KEPT_AGENTS)
        os.utime(agent)
        return [agent, base]


def requirements() -> list[str]:
    """What the agent's wheel depends on."""
    parser = configparser.ConfigParser()
    parser.read(checkout() / "setup.cfg", encoding="utf-8")
    return parser["options"]["install_requires"].split()


def _build(order: dict[str, object]) -> None:
    order = {**order, "cache": str(cache())}
    argv = [
        "unshare",
        "--mount",
        "--pid",
        "--uts",
        "--ipc",
        "--fork",
        "--kill-child",
        "--propagation",
        "private",
        sys.executable,
    ]
    environment = {"PYTHONPATH": str(checkout()), "PYTHONDONTWRITEBYTECODE": "1"}
    run_tool(
        [*argv, "-m", "waagent.lab.machine.build", json.dumps(order)],
        deadline_s=BUILD_LIMIT_S,
        env=environment,
        cwd=Path("/"),
    )


def _base_key(packages: Iterable[str]) -> str:
    status = Path("/var/lib/dpkg/status")
    if not status.exists():
        raise LabError(
            "the machine is made of Debian packages",
            "/var/lib/dpkg/status is missing",
            "run it on Debian 12",
        )
    texts = [str(RECIPE), *packages, "", *requirements()]
    return _digest([*(text.encode() for text in texts), status.read_bytes()])


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
        old.unlink()
