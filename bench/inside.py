"""The part of the measurement that runs inside the throw-away machine, beside the agent: prints one
JSON object.

    python -m bench.inside KILLS IDLE_SECONDS
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import measure
from waagent.distro.paths import Paths
from waagent.protocol.state_table import (
    DONE,
    IDLE,
    INIT,
    OFF,
    READY,
    StateError,
    Table,
    WorkerRow,
    parse_table,
    read_state,
)

READY_S = 5.5  # a run that ended sooner counts as short and is not restarted at once
SETTLED = (READY, DONE, IDLE, OFF)


def table() -> Table:
    """What the supervisor knew last; an empty table while it writes its first."""
    try:
        descriptor = os.open(Paths().state, os.O_RDONLY)
    except OSError:
        return Table()
    try:
        return parse_table(read_state(descriptor))
    except StateError:
        return Table()
    finally:
        os.close(descriptor)


def rows() -> dict[str, WorkerRow]:
    """The workers by name."""
    return {row.name: row for row in table().workers}


def all_settled() -> bool:
    """Every worker is READY, DONE or not needed."""
    known = rows()
    return bool(known) and all(row.state in SETTLED for row in known.values())


def restart_ms(name: str) -> float:
    """SIGKILL of a worker that has been READY for long enough, until its successor has said
    hello.
    """
    measure.wait_until(lambda: _has_been_ready(rows()[name]), 60, f"{name} READY", 0.02)
    old = rows()[name].pid
    assert old is not None
    begun = time.monotonic()
    os.kill(old, signal.SIGKILL)

    def greeted() -> bool:
        row = rows()[name]
        return row.pid not in (None, 0, old) and row.state in (INIT, READY)

    measure.wait_until(greeted, 60, f"a new {name}", 0.0005)
    return (time.monotonic() - begun) * 1000


def _has_been_ready(row: WorkerRow) -> bool:
    return row.state == READY and time.monotonic() - row.since > READY_S


def agent_pids() -> list[int]:
    """Supervisor, zygote and workers that run now."""
    return measure.descendants(table().pid or 0)


def main() -> int:
    """Measure; the agent runs and is provisioned."""
    kills, idle_s = int(sys.argv[1]), float(sys.argv[2])
    measure.wait_until(all_settled, 60, "the agent settled", 0.05)
    residents = sorted(name for name, row in rows().items() if row.state == READY)
    idle = [_idle(idle_s)]
    figures: dict[str, Any] = {
        "residents": residents,
        "resident_kib": measure.pss_kib(agent_pids()),
        "each_kib": {
            Path(f"/proc/{pid}/comm").read_text().strip() + f"[{pid}]": measure.pss_kib([pid])
            for pid in agent_pids()
        },
        "restart_ms": [
            restart_ms(residents[number % len(residents)]) for number in range(kills // 2)
        ],
    }
    idle.append(_idle(idle_s))
    figures["restart_ms"] += [
        restart_ms(residents[number % len(residents)]) for number in range(kills // 2, kills)
    ]
    idle.append(_idle(idle_s))
    figures["cpu_s_per_hour"], figures["switches_per_minute"] = min(idle)
    figures["ps_ms"] = [_timed_ms(["waagent-ps"]) for _ in range(15)]
    figures["supervisor_ms"] = [_supervisor_ms(residents) for _ in range(8)]
    print(json.dumps(figures))
    return 0


def _idle(window_s: float) -> tuple[float, float]:
    measure.wait_until(all_settled, 60, "the agent settled", 0.05)
    time.sleep(READY_S)
    return measure.idle(agent_pids(), window_s)


def _timed_ms(argv: list[str]) -> float:
    begun = time.monotonic()
    # no timeout: with one, the end is looked for after 31.5, 63.5, 127.5 ms
    subprocess.run(argv, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)
    return (time.monotonic() - begun) * 1000


def _supervisor_ms(residents: list[str]) -> float:
    measure.wait_until(all_settled, 60, "the agent settled", 0.05)
    time.sleep(READY_S)
    old = table().pid or 0
    begun = time.monotonic()
    os.kill(old, signal.SIGKILL)

    def is_back() -> bool:
        now = table()
        known = {row.name: row.state for row in now.workers}
        return now.pid not in (None, 0, old) and all(known.get(name) == READY for name in residents)

    measure.wait_until(is_back, 60, "every worker READY again", 0.002)
    return (time.monotonic() - begun) * 1000


if __name__ == "__main__":
    sys.exit(main())
