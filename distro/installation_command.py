"""The command lines `setup.py install` and `setup.py uninstall`. Standard library only, and no
setuptools: Debian 13's Python has none.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from waagent.distro import (
    firewall,
    installation,
    installation_steps,
    interface_names,
    service_registration,
)
from waagent.distro.installation import DEFAULT_PREFIX, InstallationError, Options
from waagent.distro.os_release import read_os_release
from waagent.distro.paths import Paths
from waagent.distro.run import run
from waagent.protocol.base.log import PROCESS

STATE = ("/var/lib/waagent", "/var/cache/waagent", "/var/log/waagent", "/run/waagent")
STATE_FILES = ("/var/log/waagent.log*", "/run/waagent.pid")


def main(checkout: Path, words: Sequence[str]) -> int:
    """Carry out ``words``, the first of which is install or uninstall; the exit status."""
    # the spelling of older documentation: one dash
    spelled = [
        f"-{word}" if word.startswith("-") and not word.startswith("--") and len(word) > 2 else word
        for word in words
    ]
    line = _parser().parse_args(spelled)
    try:
        if line.command == "install":
            install(checkout, line)
        else:
            uninstall(checkout, line)
    except (InstallationError, OSError) as error:
        print(f"setup.py: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def install(checkout: Path, line: argparse.Namespace) -> None:
    """Plan and carry out. Raises InstallationError."""
    missing = installation.missing_parts(checkout)
    if missing:
        raise InstallationError(
            f"the checkout lacks {', '.join(missing)}", str(checkout), "fetch all of it"
        )
    if line.register_service and line.root:
        raise InstallationError(
            "--register-service works on the running system", f"--root {line.root}", "leave one out"
        )
    installation_steps.check_python(sys.executable)
    options = _options(checkout, line)
    steps = installation.plan_installation(options)
    installation_steps.Installer(options).carry_out(steps)


def uninstall(checkout: Path, line: argparse.Namespace) -> None:
    """Stop and disable the service, and remove what was installed. Raises InstallationError."""
    options = _options(checkout, line)
    manifest = installation_steps.read_manifest(options.private)
    say = installation_steps.say
    if manifest and not line.root:
        ps = options.private / "sbin/waagent-ps"
        service_registration.unregister(str(manifest["init_system"]), ps, say)
    if line.unregister_service:
        return
    _undo(Paths(options.root), is_live=not line.root)
    installation_steps.uninstall(options.private, options.root, force=line.force or line.purge)
    if line.purge:
        _purge(checkout, options.root, is_live=not line.root)
    else:
        say("kept: /var/lib/waagent, /var/log, the accounts; with --purge they go, too")


def _undo(paths: Paths, *, is_live: bool) -> None:
    """Put back what the running agent changed of the system, and says so in its state."""
    for name in interface_names.restore(paths):
        installation_steps.say(f"put back as it was: {name}")
    if is_live:
        firewall.try_remove(firewall.Firewall(paths, run, PROCESS), PROCESS)


def _purge(checkout: Path, root: Path, *, is_live: bool) -> None:
    for folder in STATE:
        shutil.rmtree(root / folder.lstrip("/"), ignore_errors=True)
    for pattern in STATE_FILES:
        for file in root.glob(pattern.lstrip("/")):
            file.unlink()
    if is_live:
        lines = (checkout / "etc/sysusers.d/waagent.conf").read_text("ascii").splitlines()
        service_registration.remove_accounts(line for line in lines if line[:1] in ("u", "g"))
    installation_steps.say("removed state, logs of the agent, accounts")


def _options(checkout: Path, line: argparse.Namespace) -> Options:
    root = Path(line.root or "/").resolve()
    distro = line.lnx_distro or read_os_release(Paths(root)).get("ID", "")
    if sys.platform.startswith(("freebsd", "openbsd")):
        distro = sys.platform[:7]
    default_prefix = installation.PLACES.get(distro, (DEFAULT_PREFIX, {}))[0]
    init_system = line.init_system or ("coreos" if distro in ("coreos", "flatcar") else "")
    return Options(
        checkout=checkout,
        root=root,
        prefix=line.prefix or default_prefix,
        init_system=init_system or installation.find_init_system(root),
        python=sys.executable,
        wheels=Path(line.wheels).resolve() if line.wheels else None,
        force=line.force,
        register_service=line.register_service,
        compile=not line.no_compile,
        distro=distro,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="setup.py",
        description="Install the agent into an environment of its own, or remove it.",
        epilog="See docs/install.md. Needs python3 and its venv, and for install a package index"
        " or --wheels.",
    )
    parser.add_argument("command", choices=("install", "uninstall"))
    add = parser.add_argument
    add("--register-service", action="store_true", help="enable and start the service")
    add(
        "--unregister-service",
        action="store_true",
        help="with uninstall: stop and disable the service, remove nothing",
    )
    add("--init-system", metavar="NAME", help=f"{', '.join(installation.INIT_SYSTEMS)}")
    add(
        "--lnx-distro",
        metavar="NAME",
        help="where files lie, when it is not this machine's: coreos, flatcar, freebsd, openbsd",
    )
    for name in ("--lnx-distro-version", "--lnx-distro-fullname"):
        add(name, metavar="TEXT", help=argparse.SUPPRESS)
    add("--skip-data-files", action="store_true", help=argparse.SUPPRESS)
    add("-f", "--force", action="store_true", help="replace or remove files that were changed, too")
    add("--root", metavar="DIR", help="stage below this folder, for an image or a package")
    add("--prefix", metavar="DIR", help=f"default {DEFAULT_PREFIX}")
    add("--wheels", metavar="DIR", help="wheels of everything needed, for hosts without a network")
    add("--no-compile", action="store_true", help="no .pyc files; packages make their own")
    add("--purge", action="store_true", help="with uninstall: also state, logs, accounts")
    return parser
