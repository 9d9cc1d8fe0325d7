"""HostingEnvironmentConfig.xml and SharedConfig.xml at the places where programs look for them, and
the programs that Role.ConfigurationConsumer and Role.TopologyConsumer name, run when one of them
has changed.

fabric_client's transfer process has put them into its spool; they are copied from there as any
file of somebody else's. A program is an operation of its own: it may hang or crash, and nothing
here waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waagent.distro.files import (
    FileError,
    make_folder,
    read_foreign,
    read_state_json,
    write_atomic,
    write_json,
)
from waagent.distro.operations import records, role_programs
from waagent.distro.operations.launch import OperationError
from waagent.distro.paths import Paths
from waagent.protocol.bus.topics import spool_name

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

CONSUMERS = {
    "HostingEnvironmentConfig": "Role.ConfigurationConsumer",
    "SharedConfig": "Role.TopologyConsumer",
}
LIMIT_BYTES = 4 * 1024 * 1024
NOTE = "role-consumers.json"  # which program was told which content
LOOK_S = 2.0


class RoleDocuments:
    """The two documents. Invariant: a program is started after its file is in place, once for each
    content.
    """

    def __init__(self, worker: Worker, paths: Paths) -> None:
        self._worker, self._paths = worker, paths

    def changed(self, body: Mapping[str, Any], revision: int) -> None:
        """New hashes (name -> SHA-256) of what is in the spool."""
        for name, option in CONSUMERS.items():
            wanted = body.get(name)
            if not isinstance(wanted, str) or not wanted.isalnum():
                continue
            try:
                self._take(name, option, wanted)
            except FileNotFoundError:
                continue  # a newer one has come meanwhile, and is told next
            except (OSError, FileError, OperationError, role_programs.Untrusted) as error:
                self._worker.log.warning("%s of the goal state is not handed on: %s", name, error)

    def _take(self, name: str, option: str, wanted: str) -> None:
        program = self._worker.configuration.get(option)
        if not isinstance(program, str) or not program:
            return
        file = self._paths.library / f"{name}.xml"
        data = read_foreign(self._paths.cache, spool_name(name, wanted), limit_bytes=LIMIT_BYTES)
        if not file.is_file() or file.read_bytes() != data:
            make_folder(self._paths.library, 0o700)
            write_atomic(file, data, mode=0o600)
        note = self._paths.library / NOTE
        told = read_state_json(note) if note.exists() else {}
        if isinstance(told, dict) and told.get(option) == [program, wanted]:
            return
        folder = role_programs.run_program(self._paths, option, program, str(file))
        self._worker.log.info("%s was started: %s %s", option, program, file)
        known = told if isinstance(told, dict) else {}
        write_json(note, {**known, option: [program, wanted]})
        self._look(option, folder)

    def _look(self, option: str, folder: Path) -> None:
        seen = records.observe(folder)
        if not seen.has_ended:
            self._worker.loop.after(LOOK_S, lambda: self._look(option, folder))
        elif seen.succeeded:
            self._worker.log.info("%s succeeded", option)
        else:
            end = records.describe_end(seen)
            self._worker.log.warning("%s failed: %s: %s: look at its log", option, end, folder)
