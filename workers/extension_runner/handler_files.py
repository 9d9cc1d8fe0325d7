"""What the agent writes into a handler's folders before it runs a command, and after (spec:
extensions §2).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from waagent.distro import files
from waagent.distro.paths import Paths
from waagent.protocol.base.log import PROCESS
from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import ExtensionGoal
from waagent.protocol.handler import handler_names
from waagent.protocol.handler.settings_files import environment_file, file_prefix, settings_file

KEPT_SETTINGS, KEPT_SETTINGS_BYTES = 20, 4 * 1024 * 1024
STATE_LIMIT_BYTES = 4096
MRSEQ, STATUS = re.compile(r"(.+\.)?mrseq"), re.compile(r".+\.status")
MEMORY_LIMIT_BYTES = 4 * 1024 * 1024  # as much of a status file as is ever read


class Place(Record):
    """What of `Paths` crosses to the process that works in handlers' folders."""

    library: Path
    handler_logs: Path


class Folders:
    """Where one version of a handler lives."""

    def __init__(self, paths: Paths | Place, name: str, version: str) -> None:
        self.base = paths.library / handler_names.folder_name(name, version)
        self.config = self.base / "config"
        self.status = self.base / "status"
        self.log = paths.handler_logs / name


def initialise(folders: Folders, name: str) -> None:
    """The folders and HandlerEnvironment.json that every command expects. Raises OSError or
    FileError.
    """
    files.make_folder(folders.config, 0o700)
    files.make_folder(folders.status, 0o700)
    files.write_atomic(
        folders.base / "HandlerEnvironment.json",
        environment_file(name, str(folders.base), str(folders.log)),
    )
    for folder, mode in (
        (folders.log.parent, 0o755),
        (folders.log, 0o755),
        (folders.log / "events", 0o700),
    ):
        try:
            files.make_folder(folder, mode)  # whatever the umask, or a handler, made of it
        except (OSError, files.FileError):
            # an operator replaced it by a file, or it is full: the handler may still work
            PROCESS.warning(
                "handler's log folder cannot be made: %s: remove what stands there", folder
            )
            return


def write_settings(folders: Folders, goal: ExtensionGoal | None, *, is_multi: bool) -> None:
    """`<seq>.settings` anew, also when unchanged: handlers take the newest by time. Raises
    SettingsError, OSError, FileError.
    """
    files.make_folder(folders.config, 0o700)
    if goal is None:
        files.write_atomic(folders.config / "0.settings", b"")
        return
    extension = goal.name if is_multi else ""
    files.write_atomic(
        folders.config / f"{file_prefix(extension, goal.sequence)}.settings", settings_file(goal)
    )
    _drop_old_settings(folders.config, extension)


def write_state(folders: Folders, state: str, status: str, extensions: Iterable[str]) -> None:
    """HandlerState, HandlerStatus (the text of the file; empty: as it is) and those of enabled
    extensions, in the predecessor's words, for one that is installed later. Raises OSError.
    """
    files.write_atomic(folders.config / "HandlerState", state.encode())
    if status:
        files.write_atomic(folders.config / "HandlerStatus", status.encode())
    for extension in extensions:
        files.write_atomic(folders.config / f"{extension}.HandlerState", b"enabled")


def copy_memory(old: Folders, new: Folders) -> None:
    """What a handler remembers goes from its old version to the new one: `mrseq`, `*.mrseq` and
    its status files, so that the current status stays visible during the update. Raises OSError.
    """
    for source, target, pattern in (
        (old.base, new.base, MRSEQ),
        (old.status, new.status, STATUS),
    ):
        for entry in os.scandir(source) if source.is_dir() else ():
            if pattern.fullmatch(entry.name):
                try:
                    data = files.read_foreign(source, entry.name, limit_bytes=MEMORY_LIMIT_BYTES)
                except files.FileError:
                    continue  # a link, a FIFO, or too large: nothing that a handler remembers by
                files.write_atomic(target / entry.name, data)


def versions_present(library: Path, name: str) -> dict[str, str]:
    """Version -> the word in its HandlerState (empty: none) for each unpacked version."""
    found: dict[str, str] = {}
    for folder in library.iterdir() if library.is_dir() else ():
        parts = handler_names.split_folder(folder.name)
        if (
            parts is not None
            and handler_names.same_name(parts[0], name)
            and (folder / "HandlerManifest.json").is_file()
        ):
            found[parts[1]] = _state_in(folder)
    return found


def _state_in(folder: Path) -> str:
    try:
        data = files.read_foreign(folder / "config", "HandlerState", limit_bytes=STATE_LIMIT_BYTES)
    except (OSError, files.FileError):
        return ""  # not installed, as far as anybody can tell
    return data.decode("ascii", "replace").strip()


def forget_extension(folders: Folders, extension: str) -> None:
    """Delete the files of a multi-config extension (row 17)."""
    pattern = re.compile(re.escape(extension) + r"\.(HandlerState|[0-9]+\.(settings|status))")
    for folder in (folders.config, folders.status):
        for entry in os.scandir(folder) if folder.is_dir() else ():
            if pattern.fullmatch(entry.name):
                os.unlink(entry.path)


def _drop_old_settings(config: Path, extension: str) -> None:
    prefix = re.escape(extension) + r"\." if extension else ""
    pattern = re.compile(prefix + r"[0-9]+\.settings")
    present = sorted(
        (entry for entry in os.scandir(config) if pattern.fullmatch(entry.name)),
        key=lambda entry: entry.stat().st_mtime_ns,
    )
    kept_bytes = 0
    for number, entry in enumerate(reversed(present)):
        kept_bytes += entry.stat().st_size
        is_newest = number == 0  # kept however large
        if number >= KEPT_SETTINGS or (kept_bytes > KEPT_SETTINGS_BYTES and not is_newest):
            os.unlink(entry.path)
