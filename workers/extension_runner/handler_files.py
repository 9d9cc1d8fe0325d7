"""What the agent writes into a handler's folders before it runs a command, and after (spec:
extensions §2).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from waagent.distro import files
from waagent.distro.paths import Paths
from waagent.protocol.base.log import PROCESS, Log
from waagent.protocol.bus.topics import ExtensionGoal
from waagent.protocol.handler import handler_names
from waagent.protocol.handler.settings_files import environment_file, file_prefix, settings_file
from waagent.workers.extension_runner import plan
from waagent.workers.extension_runner.handler_journal import Journal

KEPT_SETTINGS, KEPT_SETTINGS_BYTES = 20, 4 * 1024 * 1024


class Folders:
    """Where one version of a handler lives."""

    def __init__(self, paths: Paths, name: str, version: str) -> None:
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
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError:
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


def write_state(paths: Paths, journal: Journal, log: Log) -> None:
    """HandlerState and HandlerStatus in the predecessor's words, for a predecessor that is
    installed later.
    """
    for version, entry in journal.versions.items():
        folders = Folders(paths, journal.name, version)
        try:
            files.write_atomic(folders.config / "HandlerState", entry.state.encode())
            if journal.handler is not None and journal.handler.version == version:
                files.write_atomic(folders.config / "HandlerStatus", journal.handler.to_file())
            for extension in journal.extensions if entry.state == plan.ENABLED else ():
                files.write_atomic(folders.config / f"{extension}.HandlerState", b"enabled")
        except OSError as error:
            log.warning(
                "handler's state files cannot be written: %s: %s: our journal has it",
                error.strerror,
                folders.config,
            )


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
