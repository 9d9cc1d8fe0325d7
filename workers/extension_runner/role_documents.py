"""The programs that Role.ConfigurationConsumer and Role.TopologyConsumer name, run when
HostingEnvironmentConfig.xml or SharedConfig.xml below <lib> has changed.

fabric_client says what lies there. A program is an operation of its own: it may hang or crash, and
nothing here waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waagent.distro.files import FileError, read_state_json, write_json
from waagent.distro.operations import records, role_programs, single
from waagent.distro.operations.launch import OperationError
from waagent.distro.paths import Paths

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

CONSUMERS = {
    "HostingEnvironmentConfig": "Role.ConfigurationConsumer",
    "SharedConfig": "Role.TopologyConsumer",
}
NOTE = "role-consumers.json"  # which program was told which content, by which operation
LOOK_S = 2.0


class RoleDocuments:
    """Invariant: a program is started after its file is in place, once for each content that was
    told.
    """

    def __init__(self, worker: Worker, paths: Paths) -> None:
        self._worker, self._paths = worker, paths

    def changed(self, body: Mapping[str, Any], revision: int) -> None:
        """New hashes (name -> SHA-256) of what lies below <lib>."""
        for name, option in CONSUMERS.items():
            wanted = body.get(name)
            if not isinstance(wanted, str) or not wanted.isalnum():
                continue
            try:
                self._take(name, option, wanted)
            except (OSError, FileError, OperationError, role_programs.Untrusted) as error:
                self._worker.log.warning("%s of the goal state is not handed on: %s", name, error)

    def _take(self, name: str, option: str, wanted: str) -> None:
        program = self._worker.configuration.get(option)
        if not isinstance(program, str) or not program:
            return
        file = self._paths.library / f"{name}.xml"
        note = self._paths.library / NOTE
        noted = read_state_json(note) if note.exists() else {}
        known = noted if isinstance(noted, dict) else {}
        last = known.get(option)
        if isinstance(last, list) and last[:2] == [program, wanted]:
            folder = role_programs.folder_of(self._paths, str(last[-1]))
            if records.observe(folder).state != records.WAITING:
                return
        else:
            folder = role_programs.plan_program(self._paths, option, program, str(file))
            # before it starts: killed here, the next run of this worker starts the same operation
            write_json(note, {**known, option: [program, wanted, folder.name]})
        single.start(folder)
        self._worker.log.info("%s was started: %s %s", option, program, file)
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
