"""What `python3 setup.py install` does, as a plan of frozen data. Pure but for two looks at what is
there; `installation_steps` carries the plan out.

The agent lives in a virtual environment of its own below ``<prefix>/lib/waagent``; the running
Python's site-packages are never touched (PEP 668). An upgrade builds ``waagent.new`` beside the
running one and renames. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from waagent.distro.compatible_module import as_module
from waagent.protocol.base.errors import ExplainedError

COMMANDS = {
    "waagent": "waagent.supervisor.commands.main",
    "waagent-ps": "waagent.supervisor.ps.main",
    "waagent-lab": "waagent.lab.commands",
}
FOLDERS = {"waagent": "sbin"}
"""Of the commands' links for people, where that is not bin."""
ROOMS = ("supervisor", "workers", "protocol", "distro", "lab", "etc")
DEFAULT_PREFIX = "/usr"
PRIVATE = "lib/waagent"
MANIFEST = "installed.json"
PREDECESSOR_UNIT = "walinuxagent.service"


class InstallationError(ExplainedError):
    """`setup.py install` cannot go on."""


@dataclass(frozen=True)
class Options:
    """What a person asked for on the command line of `setup.py install`."""

    checkout: Path
    root: Path
    prefix: str
    init_system: str
    python: str
    wheels: Path | None = None
    force: bool = False
    register_service: bool = False
    compile: bool = True
    distro: str = ""

    @property
    def private(self) -> Path:
        """The folder of the environment."""
        return self.root / self.prefix.strip("/") / PRIVATE


@dataclass(frozen=True)
class Environment:
    """Build the virtual environment at ``target`` with the checkout's rooms and ``launchers`` in
    it, then put it in the place of ``final``.
    """

    target: Path
    final: Path
    python: str
    checkout: Path
    wheels: Path | None
    requirements: tuple[str, ...]
    launchers: tuple[tuple[str, bytes], ...]
    compile: bool = True


@dataclass(frozen=True)
class Write:
    """A file of ours; ``keep`` leaves one that a person may have changed."""

    path: Path
    content: bytes
    mode: int
    keep: bool = False


@dataclass(frozen=True)
class Copy:
    """A file of the checkout, ``source`` relative to it; ``replaced`` changes paths in it."""

    source: str
    path: Path
    mode: int
    keep: bool = False
    replaced: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    path: Path
    target: str


@dataclass(frozen=True)
class Accounts:
    """Make the accounts of sysusers.d(5) ``lines`` that are missing, where systemd does not."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Register:
    """Enable and start the service, and say what came of it."""

    init_system: str
    paths: tuple[Path, ...]
    """The command that says the state of the agent, and its log."""


# what in the checkout, where it goes, its mode, for which init systems ("": all), whether a person
# may change it
FILES: tuple[tuple[str, str, int, str, bool], ...] = (
    ("etc/waagent.conf", "/etc/waagent.conf", 0o644, "", True),
    ("etc/waagent/sandbox.d/README", "/etc/waagent/sandbox.d/README", 0o644, "", False),
    ("etc/logrotate.d/waagent", "/etc/logrotate.d/waagent", 0o644, "", True),
    (
        "etc/bash_completion.d/waagent",
        "/usr/share/bash-completion/completions/waagent",
        0o644,
        "",
        False,
    ),
    ("docs/man/waagent.8", "/usr/share/man/man8/waagent.8", 0o644, "", False),
    ("docs/man/waagent-ps.1", "/usr/share/man/man1/waagent-ps.1", 0o644, "", False),
    ("docs/man/waagent-lab.1", "/usr/share/man/man1/waagent-lab.1", 0o644, "", False),
    ("docs/man/waagent.conf.5", "/usr/share/man/man5/waagent.conf.5", 0o644, "", False),
    (
        "etc/udev/rules.d/66-azure-storage.rules",
        "/usr/lib/udev/rules.d/66-azure-storage.rules",
        0o644,
        "systemd openrc sysv upstart",
        False,
    ),
    (
        "etc/udev/rules.d/99-azure-product-uuid.rules",
        "/usr/lib/udev/rules.d/99-azure-product-uuid.rules",
        0o644,
        "systemd openrc sysv upstart",
        False,
    ),
    ("etc/tmpfiles.d/waagent.conf", "/usr/lib/tmpfiles.d/waagent.conf", 0o644, "systemd", False),
    ("etc/sysusers.d/waagent.conf", "/usr/lib/sysusers.d/waagent.conf", 0o644, "systemd", False),
    (
        "etc/systemd/waagent.service",
        "/usr/lib/systemd/system/waagent.service",
        0o644,
        "systemd",
        False,
    ),
    ("etc/openrc/waagent", "/etc/init.d/waagent", 0o755, "openrc", False),
    ("etc/sysv/waagent", "/etc/init.d/waagent", 0o755, "sysv", False),
    ("etc/upstart/waagent.conf", "/etc/init/waagent.conf", 0o644, "upstart", False),
    ("etc/freebsd/waagent", "/usr/local/etc/rc.d/waagent", 0o755, "rc.d", False),
    ("etc/openbsd/waagent", "/etc/rc.d/waagent", 0o755, "rcctl", False),
    ("etc/coreos/cloud-config.yml", "/usr/share/oem/cloud-config.yml", 0o644, "coreos", False),
)
_SECOND_COMPLETION = "/usr/share/bash-completion/completions/waagent-ps"

# The name by which the predecessor's documentation restarts it, where that is another file.
ALIASES: Mapping[str, tuple[str, str]] = {
    "sysv": ("/etc/init.d/walinuxagent", "waagent"),
    "openrc": ("/etc/init.d/walinuxagent", "waagent"),
    "upstart": ("/etc/init/walinuxagent.conf", "waagent.conf"),
}

INIT_SYSTEMS = ("systemd", "sysv", "upstart", "openrc", "rc.d", "rcctl", "coreos")
_OTHER_SPELLINGS = {"sysvinit": "sysv", "sysV": "sysv", "SysV": "sysv", "rcd": "rc.d"}

# Where something lies elsewhere than by default: its prefix, and folders that are others there.
_READ_ONLY_USR = {"/etc/": "/usr/share/oem/", "/usr/share/": "/usr/share/oem/share/"}
PLACES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "coreos": ("/usr/share/oem", _READ_ONLY_USR),
    "flatcar": ("/usr/share/oem", _READ_ONLY_USR),
    "freebsd": ("/usr/local", {"/usr/share/": "/usr/local/share/"}),
    "openbsd": ("/usr/local", {"/usr/share/": "/usr/local/share/"}),
}


def find_init_system(root: Path) -> str:
    """Which init system the machine at ``root`` starts with: one of INIT_SYSTEMS."""
    signs = (
        ("usr/share/oem/oem-release", "coreos"),
        ("run/systemd/system", "systemd"),
        ("sbin/openrc-run", "openrc"),
        ("sbin/initctl", "upstart"),
        ("usr/sbin/rcctl", "rcctl"),
        ("etc/rc.subr", "rc.d"),
        ("etc/inittab", "sysv"),
        ("usr/lib/systemd/systemd", "systemd"),
        ("lib/systemd/systemd", "systemd"),
    )
    return next((name for sign, name in signs if (root / sign).exists()), "sysv")


def init_system_of(word: str) -> str:
    """The init system that a person means. Raises InstallationError."""
    found = _OTHER_SPELLINGS.get(word, word)
    if found not in INIT_SYSTEMS:
        known = ", ".join(sorted(INIT_SYSTEMS))
        raise InstallationError(
            "unknown init system", f"--init-system={word}", f"choose one of {known}"
        )
    return found


def place(target: str, distro: str) -> str:
    """Where ``target`` lies on ``distro``."""
    for folder, there in PLACES.get(distro, ("", {}))[1].items():
        if target.startswith(folder) and not target.startswith("/usr/share/oem/"):
            return there + target[len(folder) :]
    return target


def requirements(checkout: Path) -> tuple[str, ...]:
    """What the agent imports that is not of the standard library, as in setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read(checkout / "setup.cfg", encoding="utf-8")
    return tuple(parser["options"]["install_requires"].split())


def missing_parts(checkout: Path) -> tuple[str, ...]:
    """What of the checkout is not there; links that a zip download lost are not needed."""
    needed = (*ROOMS, "waagent/__init__.py", "setup.cfg", "docs/man")
    return tuple(part for part in needed if not (checkout / part).exists())


def plan_installation(options: Options) -> tuple[object, ...]:
    """Every step in order. Raises InstallationError for an init system that nobody knows."""
    init_system = init_system_of(options.init_system)
    prefix = options.prefix.rstrip("/")
    launchers = tuple(
        (name, command_file(name, f"{prefix}/{PRIVATE}/bin/python", module))
        for name, module in COMMANDS.items()
    )
    environment = Environment(
        options.private.with_name("waagent.new"),
        options.private,
        options.python,
        options.checkout,
        options.wheels,
        requirements(options.checkout),
        launchers,
        options.compile,
    )
    service = (
        [Register(init_system, (options.private / "sbin/waagent-ps", Path("/var/log/waagent.log")))]
        if options.register_service
        else []
    )
    return (environment, *_files(options, init_system, launchers), *service)


def _files(
    options: Options, init_system: str, launchers: tuple[tuple[str, bytes], ...]
) -> list[object]:
    prefix, distro = options.prefix.rstrip("/"), options.distro
    moved: tuple[tuple[str, str], ...] = ((f"{DEFAULT_PREFIX}/{PRIVATE}/", f"{prefix}/{PRIVATE}/"),)
    for name, (default, _) in PLACES.items():
        if distro == name:
            moved += ((f"{default}/{PRIVATE}/", f"{prefix}/{PRIVATE}/"),)
    steps: list[object] = [
        Write(options.root / prefix.strip("/") / FOLDERS.get(name, "bin") / name, content, 0o755)
        for name, content in launchers
    ]
    for source, target, mode, inits, keep in FILES:
        if inits == "" or init_system in inits.split():
            path = options.root / place(target, distro).lstrip("/")
            steps.append(Copy(source, path, mode, keep and not options.force, moved))
    second = options.root / place(_SECOND_COMPLETION, distro).lstrip("/")
    steps.append(Link(second, "waagent"))
    if init_system in ALIASES:
        alias, target = ALIASES[init_system]
        steps.append(Link(options.root / alias.lstrip("/"), target))
    if options.root == Path("/") and init_system != "systemd":
        lines = (options.checkout / "etc/sysusers.d/waagent.conf").read_text("ascii").splitlines()
        steps.append(Accounts(tuple(line for line in lines if line[:1] in ("u", "g"))))
    return steps


def command_file(name: str, interpreter: str, module: str) -> bytes:
    """The file of a command; `waagent` is a module for old handlers, too."""
    environment = interpreter[: -len("/bin/python")]
    return launcher(interpreter, module) + (as_module(environment) if name == "waagent" else b"")


def launcher(interpreter: str, module: str) -> bytes:
    """A command in sbin. ``-I`` keeps the caller's directory, PYTHONPATH and user site out of a
    root process.

    Its top level imports nothing: handlers of the old school load `/usr/sbin/waagent` as a module
    with a Python of their own. An environment that this Python cannot use (its minor version has
    changed) is named in one line, and a daemon waits before init tries again.
    """
    return (
        f"#!{interpreter} -I\n"
        "# -*- coding: utf-8 -*-\n"
        'if __name__ == "__main__":\n'
        "    import sys\n"
        "\n"
        "    try:\n"
        f"        from {module} import main\n"
        "    except ImportError as error:\n"
        "        import time\n"
        "\n"
        '        version = "%d.%d" % sys.version_info[:2]\n'
        "        sys.stderr.write(\n"
        '            "%s: not usable by Python %s (%s): %s: install the agent again\\n"\n'
        f'            % (sys.argv[0], version, error, "{interpreter[: -len("/bin/python")]}")\n'
        "        )\n"
        '        if "daemon" in "".join(sys.argv[1:2]):\n'
        "            sys.stderr.flush()\n"
        "            time.sleep(10)\n"
        "        sys.exit(1)\n"
        "    sys.exit(main())\n"
    ).encode()
