"""What another agent left on this VM: its service, its processes, its handlers. Reads only."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from waagent.distro import processes
from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record
from waagent.protocol.handler import handler_names
from waagent.protocol.handler.handler_errors import StatusFileError
from waagent.protocol.handler.status_file import FILE_LIMIT_BYTES, TERMINAL, parse_status
from waagent.protocol.taken_over_file import Settled

UNITS = ("walinuxagent.service", "waagent.service")
STAMP = "taken-over"
"""In <lib>: by which version of ours, from what. A folder with it, or with a journal, is ours."""
MADE_BY_IT = re.compile(rb"was created by the Azure VM Agent")
_UNIT_FOLDERS = ("/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system")
_SIGNS = ("waagent_status.json", "published_hostname", "events", "history", "WALinuxAgent-*")
_SETTINGS = re.compile(r"(?:(?P<extension>[\w.-]+)\.)?(?P<sequence>\d+)\.settings")
_AGENT = re.compile(r"(^|[/ ])(waagent|WALinuxAgent-[^ ]*\.egg|bin/WALinuxAgent[^ ]*)( |$)")


class Process(Record):
    """One that lives."""

    pid: int
    command: str
    handler: str
    """Folder `Name-Version` of the handler it belongs to; empty: of none."""
    is_agent: bool
    """The predecessor's own."""


class Handler(Record):
    """One version of a handler, as the predecessor recorded it."""

    name: str
    version: str
    state: str
    """Its word: Enabled, Installed …"""
    extensions: tuple[tuple[str, int, str], ...]
    """Name (empty: the only one), newest sequence number, state in its status file."""

    @property
    def is_settled(self) -> bool:
        """Enabled, and every extension has said how it ended."""
        return self.state == "Enabled" and all(state in TERMINAL for _, _, state in self.extensions)


class Left(Record):
    """Everything that a predecessor left."""

    is_there: bool
    """Another agent runs; or there is state of one, and none of ours."""
    unit: str
    """Its unit that is active; empty: none is."""
    processes: tuple[Process, ...]
    """Of that unit."""
    handlers: tuple[Handler, ...]
    has_transport_key: bool
    is_provisioned: bool
    host_name: str
    files: tuple[Path, ...]
    """Units and drop-ins that it made by itself, to be removed."""


def look(paths: Paths) -> Left:
    """What is there now."""
    library = paths.library
    unit, found = _unit_processes(paths)
    ours = (library / STAMP).exists() or (paths.operations / "handlers").is_dir()
    signs = [sign for sign in _SIGNS if any(library.glob(sign))]
    keys = [library / name for name in ("TransportPrivate.pem", "TransportCert.pem")]
    own_key = all(key.is_file() and not key.is_symlink() for key in keys)
    handlers = tuple(sorted(_handlers(library)))
    is_provisioned = paths.provisioned.exists()
    return Left(
        bool(unit) or (not ours and bool(signs or own_key or handlers or is_provisioned)),
        unit,
        found,
        handlers,
        own_key,
        is_provisioned,
        _text(library / "published_hostname").strip(),
        tuple(_made_files(paths)),
    )


def settled(before: Left, after: Iterable[Process]) -> list[Settled]:
    """Of whose handlers ENABLE is not run again: settled before, and what they had left running
    lives.
    """
    alive = {process.pid for process in after}
    died = {process.handler for process in before.processes if process.pid not in alive}
    return [
        Settled(handler.name.lower(), handler.version, extension, sequence)
        for handler in before.handlers
        if before.unit and handler.is_settled and f"{handler.name}-{handler.version}" not in died
        for extension, sequence, _ in handler.extensions
    ]


def in_flight(left: Left) -> list[Process]:
    """Processes of handlers that have not said how their operation ended."""
    open_ones = {
        f"{handler.name}-{handler.version}" for handler in left.handlers if not handler.is_settled
    }
    return [process for process in left.processes if process.handler in open_ones]


def still_alive(found: Iterable[Process]) -> list[Process]:
    """Those of ``found`` that live."""
    return [process for process in found if processes.is_alive(process.pid)]


def _unit_processes(paths: Paths) -> tuple[str, tuple[Process, ...]]:
    """The unit of another agent that has processes, and these; ours is told by its title."""
    for unit in UNITS:
        found: list[Process] = []
        for file in _members(paths, unit):
            pids = _text(file).split()
            found += [_process(paths, int(pid)) for pid in pids if pid.isdigit()]
        if any(process.command.startswith("waagent: ") for process in found):
            continue
        if any(process.is_agent for process in found):
            return unit, tuple(found)
    return "", ()


def _members(paths: Paths, unit: str) -> list[Path]:
    """cgroup.procs of the unit, wherever its hierarchy is mounted, in whatever slice."""
    base = paths.under("/sys/fs/cgroup")
    found: list[Path] = []
    for pattern in (f"*.slice/{unit}", f"*/*.slice/{unit}"):  # v2, and hierarchies of v1
        found += base.glob(f"{pattern}/cgroup.procs")
        found += base.glob(f"{pattern}/**/cgroup.procs")
    return list(dict.fromkeys(found))


def _process(paths: Paths, pid: int) -> Process:
    folder = Path("/proc", str(pid))
    command = _text(folder / "cmdline").replace("\0", " ").strip()
    try:
        place = os.readlink(folder / "cwd")
    except OSError:
        place = ""
    handler = ""
    for entry in (place, *command.split()):
        _, mark, rest = entry.partition(f"{paths.library}/")
        name = rest.split("/", 1)[0]
        if mark and handler_names.split_folder(name) is not None:
            handler = name
    return Process(pid, command[:200], handler, not handler and bool(_AGENT.search(command)))


def _handlers(library: Path) -> Iterable[Handler]:
    for folder in library.iterdir() if library.is_dir() else ():
        parts = handler_names.split_folder(folder.name)
        if parts is None or not (folder / "HandlerManifest.json").is_file():
            continue
        state = _text(folder / "config" / "HandlerState").strip() or "NotInstalled"
        newest: dict[str, int] = {}
        for path in (folder / "config").glob("*.settings"):
            if match := _SETTINGS.fullmatch(path.name):
                name, sequence = match["extension"] or "", int(match["sequence"])
                newest[name] = max(sequence, newest.get(name, -1))
        rows = tuple(
            (name, sequence, _status(folder, name, sequence))
            for name, sequence in sorted(newest.items())
        )
        yield Handler(parts[0], parts[1], state, rows)


def _status(folder: Path, extension: str, sequence: int) -> str:
    """The word in a status file; `success` where a handler without settings writes none."""
    name = f"{extension}.{sequence}.status" if extension else f"{sequence}.status"
    settings = folder / "config" / f"{sequence}.settings"
    try:
        with open(folder / "status" / name, "rb") as stream:
            return parse_status(stream.read(FILE_LIMIT_BYTES)).status
    except FileNotFoundError:
        is_without = not extension and settings.exists() and settings.stat().st_size == 0
        return "success" if is_without else "none"
    except (OSError, StatusFileError):
        return "unreadable"


def _made_files(paths: Paths) -> Iterable[Path]:
    """Units and drop-ins with its note in them; those of a package have none."""
    for folder in _UNIT_FOLDERS:
        base = paths.under(folder)
        patterns = ("*agent-network-setup.service", "w*agent.service.d/*.conf")
        for path in (path for pattern in patterns for path in base.glob(pattern)):
            if path.is_file() and not path.is_symlink() and MADE_BY_IT.search(path.read_bytes()):
                yield path
        for name in ("azure.slice", "azure-vmextensions.slice"):
            if (base / name).is_file() and b"VM Agent" in (base / name).read_bytes():
                yield base / name


def operators_drop_ins(paths: Paths) -> list[Path]:
    """Limits that operators wrote for the predecessor's slices: they keep their effect."""
    folder = paths.under("/etc/systemd/system")
    return sorted(folder.glob("azure-vmextensions-*.slice.d/*.conf"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def as_stamp(left: Left, version: str) -> bytes:
    """What `<lib>/taken-over` says."""
    handlers = [f"{handler.name} {handler.version}" for handler in left.handlers]
    return (json.dumps({"by": version, "handlers": handlers}) + "\n").encode()
