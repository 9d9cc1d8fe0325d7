"""Debian packages fetched with apt's files in a folder of their own, so that neither the lists nor
the package database of this machine matter, and nothing is installed on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from waagent.lab.tools import run_tool

ARCHIVE, SECURITY = "http://deb.debian.org/debian/", "http://deb.debian.org/debian-security/"
FETCH_LIMIT_S = 600.0
_MERGED = ("bin", "sbin", "lib", "lib64", "lib32", "libx32")


def sources(suite: str) -> str:
    """A sources.list(5) of ``suite``, from this machine's own mirrors where it names any."""
    argv = ["apt-get", "-oDir::State::status=/dev/null", "indextargets"]
    said = run_tool([*argv, "--format", "$(REPO_URI)"]).decode()
    known = [f"{address.rstrip('/')}/" for address in said.split()]
    archive = next((a for a in known if a.endswith("/debian/")), ARCHIVE)
    security = next((a for a in known if a.endswith("/debian-security/")), SECURITY)
    return "".join(
        f"deb {address} {pocket} main\n"
        for address, pocket in (
            (archive, suite),
            (archive, f"{suite}-updates"),
            (security, f"{suite}-security"),
        )
    )


def fetch(folder: Path, suite: str, packages: Sequence[str], root: Path | None) -> list[Path]:
    """The `.deb` files of ``packages`` and, with ``root``, of what they need besides what that
    root has. ``folder`` takes apt's files. Raises LabError.
    """
    state = folder / "apt"
    for name in ("lists/partial", "archives/partial", "etc"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "etc/sources.list").write_text(sources(suite), encoding="utf-8")
    (state / "status").touch()
    status = root / "var/lib/dpkg/status" if root is not None else state / "status"
    trusted = (root or Path("/")) / "etc/apt/trusted.gpg.d"
    options = {
        "Dir::State::lists": state / "lists",
        "Dir::State::status": status,
        "Dir::State::extended_states": state / "extended_states",
        "Dir::Cache": state,
        "Dir::Etc::sourcelist": state / "etc/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::trustedparts": trusted,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    apt = ["apt-get", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]
    run_tool([*apt, "update"], deadline_s=FETCH_LIMIT_S)
    if root is not None:
        wanted = [*apt, "--yes", "--download-only", "install", *packages]
        run_tool(wanted, deadline_s=FETCH_LIMIT_S)
    else:
        run_tool([*apt, "download", *packages], deadline_s=FETCH_LIMIT_S, cwd=state / "archives")
    return sorted((state / "archives").glob("*.deb"))


def unpack(packages: Sequence[Path], target: Path) -> None:
    """Unpack ``packages`` into ``target``, whose /bin, /sbin and /lib are Debian's links."""
    for name in _MERGED:
        (target / "usr" / name).mkdir(parents=True)
        (target / name).symlink_to(f"usr/{name}")
    for package in packages:
        run_tool(["dpkg-deb", "--extract", package, target])


def tool_path(store: Path, tool: str, package: str, suite: str) -> dict[str, str]:
    """The environment in which ``tool`` is found: as it is, or with the tool's package unpacked
    below ``store``.
    """
    place = store / package
    if shutil.which(tool) is None and not place.exists():
        half = store / f"{package}.part"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        unpack(fetch(half / "fetched", suite, [package], None), half / "tree")
        (half / "tree").rename(place)
        shutil.rmtree(half)
    if shutil.which(tool) is not None:
        return {}
    return {"PATH": f"{place}/usr/bin:{place}/usr/sbin:{os.environ.get('PATH', '')}"}
