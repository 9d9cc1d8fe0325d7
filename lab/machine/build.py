"""Makes one layer of a machine. Runs as PID 1 of its own mount, PID and network namespace.

Everything happens in a chroot over an overlay of the lower layers whose upper folder lies on a
tmpfs; what that holds in the end is the layer. The wheels in `.cache/wheels` are bound into it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from waagent.distro.installation import command_file
from waagent.lab.fabric.values import LabError
from waagent.lab.machine import overlay
from waagent.lab.tools import run_tool

ENVIRONMENT = "/usr/lib/waagent"
ACCOUNTS = (("waagent", 64510), ("waagent-probe", 64511))
BUS_GROUP = ("waagent-bus", 64512)
_KEPT_OUT = ("tmp", "run", "root", "lab-wheels", "lab-source", "lab-out", "var/log")
_SETTINGS = (
    "PIP_NO_CACHE_DIR=1",
    "PIP_DISABLE_PIP_VERSION_CHECK=1",
    "PIP_ROOT_USER_ACTION=ignore",
    "HOME=/root",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
)
_XATTRS = (
    "--xattrs",
    "--xattrs-include=trusted.overlay.opaque",
    "--xattrs-include=security.capability",
)
_LAUNCHERS = (
    ("usr/sbin/waagent", "waagent.supervisor.commands.main"),
    ("usr/bin/waagent-ps", "waagent.supervisor.ps.main"),
)


def main() -> int:
    """Carry out the order given as JSON in the one argument."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    # a machine is the same whoever makes it: every user of it reads what is installed
    os.umask(0o022)
    scratch = Path(order["scratch"])
    overlay.tmpfs(scratch)
    root = scratch / "root"
    overlay.mount_root(root, [Path(path) for path in order["lowers"]], scratch)
    overlay.mount("proc", "proc", root / "proc")
    overlay.make_dev(root / "dev")
    overlay.tmpfs(root / "tmp", "mode=1777")
    (root / "lab-wheels").mkdir()
    overlay.mount("bind", order["wheels"], root / "lab-wheels")
    try:
        {"environment": _environment, "agent": _agent}[order["kind"]](root, order)
        _keep(scratch / "upper", Path(order["target"]))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _environment(root: Path, order: dict[str, Any]) -> None:
    _make_accounts(root)
    _inside(root, ["/usr/bin/python3", "-m", "venv", ENVIRONMENT])
    pip = [f"{ENVIRONMENT}/bin/pip", "install", "--quiet", "--no-index"]
    _inside(root, [*pip, "--find-links", "/lab-wheels", *order["requirements"]])


def _make_accounts(root: Path) -> None:
    _inside(root, ["groupadd", "--gid", str(BUS_GROUP[1]), BUS_GROUP[0]])
    no_login = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    for name, number in ACCOUNTS:
        _inside(
            root, ["useradd", "--system", "--uid", str(number), "--user-group", *no_login, name]
        )


def _agent(root: Path, order: dict[str, Any]) -> None:
    source = root / "lab-source"
    for part in order["parts"]:
        origin = Path(order["source"]) / part
        if origin.is_dir():
            shutil.copytree(
                origin,
                source / part,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"),
            )
        elif origin.exists():
            source.mkdir(exist_ok=True)
            shutil.copy2(origin, source / part)
    pip = f"{ENVIRONMENT}/bin/pip"
    fetched = ["--quiet", "--no-index", "--find-links", "/lab-wheels"]
    _inside(root, [pip, "wheel", *fetched, "--no-deps", "--wheel-dir", "/lab-out", "/lab-source"])
    wheels = sorted(str(path.relative_to(root)) for path in (root / "lab-out").glob("*.whl"))
    _inside(root, [pip, "install", *fetched, "--no-deps", *(f"/{wheel}" for wheel in wheels)])
    for name, module in _LAUNCHERS:
        launcher = root / name
        launcher.unlink(missing_ok=True)
        command = launcher.name
        launcher.write_bytes(command_file(command, f"{ENVIRONMENT}/bin/python", module))
        launcher.chmod(0o755)
    configuration = Path(order["source"]) / "etc" / "waagent.conf"
    if configuration.exists():
        shutil.copy(configuration, root / "etc/waagent.conf")
        (root / "etc/waagent.conf").chmod(0o644)


def _inside(root: Path, argv: list[str]) -> None:
    run_tool(["env", "-i", *_SETTINGS, "chroot", root, *argv], deadline_s=500.0)


def _keep(upper: Path, target: Path) -> None:
    """Copy what was made from the tmpfs to where it stays, with the marks of an overlay."""
    for name in _KEPT_OUT:
        left = upper / name
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
    half = target.with_suffix(".part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    tar = ["tar", *_XATTRS, "--numeric-owner", "--preserve-permissions"]
    content = run_tool([*tar, "--create", "--directory", str(upper), "."], deadline_s=300.0)
    run_tool([*tar, "--extract", "--directory", str(half)], deadline_s=300.0, stdin=content)
    half.rename(target)


if __name__ == "__main__":
    sys.exit(main())
