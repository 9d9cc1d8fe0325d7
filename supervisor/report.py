"""What the supervisor shows: the table that `list` answers and the state file holds."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import waagent
from waagent.protocol import state_table
from waagent.protocol.state_table import Table, WorkerRow, ZygoteRow
from waagent.supervisor import states
from waagent.supervisor.states import Workers

_KEPT_NOTES = 8


class Report:
    """Holds what does not change while the supervisor runs, and what an operator should know."""

    def __init__(self, file: Path, build: str, boot_id: str, vm_id: str) -> None:
        """``file`` is the state file; a build's table of this boot and VM is its successor's
        start.
        """
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._writer = state_table.StateWriter(descriptor)
        self._started_at = time.monotonic()
        self._own = build, boot_id, vm_id
        self.before = state_table.parse_table(self._writer.before)
        """What the last supervisor wrote."""
        self.missing: tuple[str, ...] = ()
        self.notes: deque[str] = deque(maxlen=_KEPT_NOTES)
        self.stacks: dict[str, str] = {}
        """Files with the stacks of workers' last hangs."""

    def processes_before(self) -> list[tuple[int | None, int | None]]:
        """Pid and start ticks of the last supervisor's processes, as far as they are of this
        boot.
        """
        before = self.before
        rows = [(row.pid, row.start_ticks) for row in before.workers]
        rows.append((before.zygote.pid, before.zygote.start_ticks))
        return rows if before.boot_id == self._own[1] else []

    def rows_before(self) -> dict[str, WorkerRow]:
        """What the same build wrote in this boot: its results and facts still hold."""
        before = self.before
        is_ours = (before.build, before.boot_id, before.vm_id) == self._own
        return {row.name: row for row in before.workers} if is_ours else {}

    def table(
        self,
        workers: Workers,
        ticks: Mapping[int, int | None],
        zygote_pid: int,
        cgroups: str,
        refused: int,
    ) -> Table:
        """Everything at this moment; ``ticks`` are start ticks by pid, ``refused`` counts control
        messages and connections.
        """
        build, boot_id, vm_id = self._own
        refusals = [f"{refused} control messages or connections refused"] if refused else []
        return Table(
            agent_version=waagent.__version__,
            build=build,
            boot_id=boot_id,
            vm_id=vm_id,
            pid=os.getpid(),
            start_ticks=ticks.get(os.getpid()),
            started_at=self._started_at,
            beat_at=time.monotonic(),
            source="supervisor",
            missing=self.missing,
            cgroups=cgroups,
            zygote=ZygoteRow(zygote_pid, ticks.get(zygote_pid)),
            notes=(*self.notes, *refusals),
            workers=tuple(
                states.shown(
                    life,
                    states.waits_for(workers.lives, life.row),
                    ticks.get(life.pid or 0),
                    self.stacks.get(name, ""),
                )
                for name, life in workers.lives.items()
            ),
        )

    def write(self, table: Table) -> str:
        """Make it the state file's newest slot; why that failed, or nothing."""
        try:
            self._writer.write(state_table.table_map(table))
        except (OSError, state_table.StateError) as error:
            return f"the state file cannot be written: {error}"
        return ""
