"""`python run_supervisor.py ROOT ROWS WITHOUT TREE [read]`: one supervisor over fake workers, or
the settings for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from waagent.distro.paths import Paths
from waagent.protocol.configuration.supervisor_settings import Settings, write_settings
from waagent.protocol.state_table import ONDEMAND, ONESHOT, RESIDENT
from waagent.supervisor import supervisor, zygote_client
from waagent.supervisor.roster import ROOT_ACCOUNT, WAAGENT, Row

HERE = Path(__file__).resolve().parent


def a_row(name: str, kind: str = RESIDENT, **fields: Any) -> Row:
    """A worker with short periods, root without capabilities unless said otherwise."""
    usual = {
        "account": ROOT_ACCOUNT,
        "serves": False,
        "capabilities": (),
        "memory_mib": 64,
        "pids": 32,
        "nofile": 128,
    }
    return Row(name=name, kind=kind, **{**usual, "beat_s": 0.5, "beat_limit_s": 3.0, **fields})


def main() -> int:
    root, rows, without, tree = sys.argv[1:5]
    names = {
        "a_row": a_row,
        "ONESHOT": ONESHOT,
        "ONDEMAND": ONDEMAND,
        "WAAGENT": WAAGENT,
    }
    table: dict[Row, dict[str, Any]] = dict(eval(rows, names))  # our own tests' text

    off = [name[:-4] for name in os.listdir(root) if name.endswith(".off")]
    by_worker = {row.name: behaviour for row, behaviour in table.items()}
    settings = Settings(by_worker, frozenset(off))
    if sys.argv[5:]:
        write_settings(1, settings)
        return 0
    reader = [sys.executable, *sys.argv, "read"]
    switches = zygote_client.Switches(
        frozenset(filter(None, without.split(","))), "fake_worker:run", (str(HERE),), tree
    )
    status = supervisor.supervise(Paths(root), tuple(table), settings, reader, switches)
    ours = sorted(name for name in sys.modules if name.partition(".")[0] == "waagent")
    Path(root, "modules").write_text("\n".join(ours))
    return status


sys.exit(main())
