"""Makes one layer of a machine. Runs as PID 1 of its own mount and PID namespace, with the host's
network.

Everything happens in a chroot over an overlay of `/` whose upper folder lies on a tmpfs; that upper
folder becomes the tarball. Packages and wheels that were fetched stay in `.cache/apt` and
`.cache/wheels`, bound into the chroot.
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
_KEPT_OUT = (
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/log",
    "tmp",
    "run",
    "root",
    "lab-wheels",
    "lab-source",
    "lab-out",
)
_SETTINGS = {
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "HOME": "/root",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "PIP_ROOT_USER_ACTION": "ignore",
}
_APT_OPTIONS = (
    "Dpkg::Options::=--force-unsafe-io",
    "APT::Sandbox::User=root",
    "Dpkg::Use-Pty=0",
    "Acquire::Retries=3",
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
    kept = Path(order["cache"])
    scratch = kept / "build"
    overlay.tmpfs(scratch)
    lowers = overlay.unpack_layers(scratch, [Path(path) for path in order["lowers"]])
    root = scratch / "root"
    overlay.mount_root(root, lowers, scratch)
    overlay.mount("proc", "proc", root / "proc")
    overlay.make_dev(root / "dev")
    overlay.tmpfs(root / "tmp", "mode=1777")
    for inside, outside in (
        ("var/lib/apt/lists", "apt/lists"),
        ("var/cache/apt/archives", "apt/archives"),
        ("lab-wheels", "wheels"),
    ):
        (kept / outside / "partial").mkdir(parents=True, exist_ok=True)
        (root / inside).mkdir(parents=True, exist_ok=True)
        overlay.mount("bind", str(kept / outside), root / inside)
    try:
        {"base": _base, "agent": _agent}[order["kind"]](root, order)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    _pack(scratch / "upper", Path(order["target"]))
    return 0


def _base(root: Path, order: dict[str, Any]) -> None:
    _install_packages(root, order["packages"])
    _make_accounts(root)
    _make_environment(root, order["requirements"])


def _install_packages(root: Path, packages: list[str]) -> None:
    policy = root / "usr/sbin/policy-rc.d"  # nothing that is installed may start its service
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    quick = [word for option in _APT_OPTIONS for word in ("-o", option)]
    flags = ["--yes", "--quiet", "--no-install-recommends"]
    install = ["apt-get", *quick, "install", *flags, *packages]
    try:
        _inside(root, install)
    except LabError:  # no lists yet, or lists too old to find the packages
        _inside(root, ["apt-get", *quick, "update", "--quiet"])
        _inside(root, install)
    policy.unlink()


def _make_accounts(root: Path) -> None:
    _inside(root, ["groupadd", "--gid", str(BUS_GROUP[1]), BUS_GROUP[0]])
    no_login = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
    for name, number in ACCOUNTS:
        _inside(
            root, ["useradd", "--system", "--uid", str(number), "--user-group", *no_login, name]
        )


def _make_environment(root: Path, requirements: list[str]) -> None:
    _inside(root, ["/usr/bin/python3", "-m", "venv", ENVIRONMENT])
    pip = f"{ENVIRONMENT}/bin/pip"
    kept = ["--quiet", "--find-links", "/lab-wheels"]
    wanted = [*requirements, "setuptools>=61", "wheel"]
    _inside(root, [pip, "download", *kept, "--dest", "/lab-wheels", *wanted])
    _inside(root, [pip, "install", *kept, "--no-index", *requirements])


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
    pip_settings = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "http_proxy", "https_proxy"))
    }
    settings = [f"{name}={value}" for name, value in {**pip_settings, **_SETTINGS}.items()]
    run_tool(["env", "-i", *settings, "chroot", root, *argv], deadline_s=500.0)


def _pack(upper: Path, target: Path) -> None:
    for name in _KEPT_OUT:
        left = upper / name
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
    half = target.with_suffix(".part")
    run_tool(
        [
            "tar",
            "--create",
            "--file",
            half,
            "--directory",
            upper,
            "--numeric-owner",
            "--sort=name",
            "--xattrs",
            "--xattrs-include=trusted.overlay.opaque",
            "--xattrs-include=security.capability",
            ".",
        ],
        deadline_s=300.0,
    )
    half.rename(target)


if __name__ == "__main__":
    sys.exit(main())
