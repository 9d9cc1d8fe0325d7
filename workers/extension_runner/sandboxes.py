"""From wishes and the machine's folders to the sandbox of one command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from waagent.distro.operations.launch import Sandbox
from waagent.distro.paths import Paths
from waagent.protocol import state_table
from waagent.protocol.handler import handler_names
from waagent.workers.extension_runner.handler_files import Folders
from waagent.workers.extension_runner.python_command import FOLDER
from waagent.workers.extension_runner.sandbox_wishes import STRICT, Wish

_SHARED_FILES = ("SharedConfig.xml", "HostingEnvironmentConfig.xml")


def sandbox_of(
    wish: Wish, paths: Paths, name: str, folders: Folders, thumbprints: Sequence[str] = ()
) -> Sandbox:
    """What the command of handler ``name`` gets. ``thumbprints`` are those of its settings."""
    if wish.profile == STRICT:
        return _strict(wish, paths, folders, thumbprints)
    if paths.root != Path("/"):
        return Sandbox("default")  # below a prefix lies no running system
    hidden = [paths.run, paths.transport, paths.operations, *others_settings(paths, name)]
    return Sandbox(
        "default",
        own_folders=(str(paths.run), str(paths.library)),
        hidden=tuple(map(str, hidden)),
        agent_pids=agent_pids(paths.state),
    )


def others_settings(paths: Paths, name: str) -> list[Path]:
    """The folders with the settings of all other handlers."""
    found = []
    for folder in sorted(paths.library.iterdir()) if paths.library.is_dir() else ():
        parts = handler_names.split_folder(folder.name)
        is_other = parts is not None and not handler_names.same_name(parts[0], name)
        if is_other and (folder / "config").is_dir():
            found.append(folder / "config")
    return found


def agent_pids(state: Path) -> tuple[int, ...]:
    """The supervisor and its workers, as the state file names them; empty when it cannot be
    read.
    """
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return ()
    try:
        table = state_table.parse_table(state_table.read_state(descriptor))
    except (OSError, ValueError, state_table.StateError):
        return ()
    finally:
        os.close(descriptor)
    pids = (table.pid, table.zygote.pid, *(row.pid for row in table.workers))
    return tuple(dict.fromkeys(pid for pid in pids if pid))


def _strict(wish: Wish, paths: Paths, folders: Folders, thumbprints: Sequence[str]) -> Sandbox:
    certificates = [
        paths.library / f"{thumbprint.upper()}.{ending}"
        for thumbprint in thumbprints
        if thumbprint.isalnum()
        for ending in ("crt", "prv")
    ]
    shared = [paths.library / name for name in (*_SHARED_FILES, FOLDER)]
    hidden = [paths.library, paths.run, paths.cache]
    return Sandbox(
        STRICT,
        hidden=tuple(map(str, hidden)),
        writable=(str(folders.base), str(folders.log), *(wish.write_paths or ())),
        readable=tuple(map(str, [*certificates, *shared])),
        capabilities=wish.capabilities or (),
        network=bool(wish.network),
    )
