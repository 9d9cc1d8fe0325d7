"""How long extensions take from the goal state to the platform, and what that costs.

`python -m bench.extensions [CASE …]`, as root; the cases are the names of `CASES`. Each runs in the
same freshly provisioned machine, three times, the median is printed.

"Fetched" is the platform's first answer that carried the new goal state, "reported" the first
status blob in which every extension of the case is a success. CPU is that of all processes of the
machine in this time and the second after it, commands of the extensions included, those that were
waited for too.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from waagent.lab.dvd import write_dvd
from waagent.lab.fabric.watching import handlers_of
from waagent.lab.handlers.packages import handler_zip
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order, ovf_env

ROUNDS = 3
PATIENCE_S = 180.0
AFTER_S = 1.0  # what is done after the report belongs to the extensions too
SPARE_S = 22.0  # helper processes that wait for more work have ended

_CPU = """
import os, sys
ticks = os.sysconf("SC_CLK_TCK")
total = 0
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) != os.getpid():
        try:
            with open(f"/proc/{name}/stat") as file:
                total += sum(int(word) for word in file.read().rpartition(")")[2].split()[11:15])
        except OSError:
            pass
print(total / ticks)
"""


class Case(NamedTuple):
    """So many handlers that are new to the machine, and how long each one's enable sleeps."""

    title: str
    handlers: int
    sleep_s: float
    limit_s: float
    """Fetched to reported, at most."""
    cpu_limit_s: float | None = None


class Figures(NamedTuple):
    """One round of a case."""

    reported_s: float
    cpu_s: float


CASES = {
    "one": Case("1 no-op extension, fetched to reported", 1, 0.0, 0.6),
    "twenty": Case("20 no-op extensions, fetched to reported", 20, 0.0, 3.0, 2.4),
    "sleepers": Case("20 extensions that sleep 2 s, fetched to reported", 20, 2.0, 6.0),
}


def measure(machine: Machine, case: Case, folder: Path, round_: int) -> Figures:
    """One round. Raises NotSeen when an extension does not succeed in PATIENCE_S."""
    package = folder / f"{case.sleep_s:g}.zip"
    rest = f"sleep {case.sleep_s:g}; " if case.sleep_s else ""
    package.write_bytes(handler_zip({"enable": f"{rest}report success 0 done"}))
    names = [
        f"Bench.N{case.handlers}S{case.sleep_s:g}R{round_}H{number}".replace(".", "")
        for number in range(case.handlers)
    ]
    wanted = [
        {
            "name": f"Bench.{name}",
            "version": "1.0.0",
            "package": str(package),
            "public": {"name": "bob"},
        }
        for name in names
    ]
    machine.fabric.forget()
    before_s = _cpu_s(machine)
    machine.fabric.set_extensions(wanted)
    set_at = time.time()
    goal = {f"Bench.{name}" for name in names}

    def reported(fabric: Any) -> float | None:
        documents = fabric.statuses
        return next((one["lab"]["time"] for one in documents if goal <= _successes(one)), None)

    at = machine.fabric.wait_for(reported, PATIENCE_S, f"{case.title}: all of them")
    fetched = next(
        item.time
        for item in machine.fabric.recorded
        if item.time >= set_at and item.status == 200 and "comp=goalstate" in item.path.lower()
    )
    time.sleep(AFTER_S)
    return Figures(at - fetched, _cpu_s(machine) - before_s)


def _successes(document: dict[str, Any]) -> set[str]:
    return {
        entry["handlerName"]
        for entry in handlers_of(document)
        if entry.get("runtimeSettingsStatus", {})
        .get("settingsStatus", {})
        .get("status", {})
        .get("status")
        == "success"
        and entry.get("status") == "Ready"
    }


def _cpu_s(machine: Machine) -> float:
    argv = ["/usr/bin/python3", "-I", "-S", "-c", _CPU]
    return float(machine.run(argv, check=True).stdout)


def measure_all(folder: Path, names: list[str]) -> dict[str, list[Figures]]:
    """Every round of the cases ``names``, in one machine."""
    dvd = write_dvd(
        folder / "boot.iso", ovf_env(Order(user_name="azureuser", password="Bench-1-only"))
    )
    found: dict[str, list[Figures]] = {}
    with Machine(folder, dvd=dvd) as machine:
        machine.fabric.wait_ready(90)
        machine.wait_states(("environment_monitor", "fabric_client"))
        for name in names:
            found[name] = []
            for round_ in range(ROUNDS):
                found[name].append(measure(machine, CASES[name], folder, round_))
                time.sleep(SPARE_S)
    return found


def main() -> int:
    """Print one line a case, and all rounds as JSON in the last line."""
    names = sys.argv[1:] or list(CASES)
    with tempfile.TemporaryDirectory(prefix="waagent-bench-") as folder:
        found = measure_all(Path(folder), names)
    is_kept = True
    for name, rounds in found.items():
        case = CASES[name]
        reported_s = statistics.median(one.reported_s for one in rounds)
        cpu_s = statistics.median(one.cpu_s for one in rounds)
        is_kept &= reported_s <= case.limit_s and cpu_s <= (case.cpu_limit_s or cpu_s)
        limit = f" (limit {case.cpu_limit_s:g})" if case.cpu_limit_s else ""
        print(
            f"{case.title}: {reported_s:.2f} s (limit {case.limit_s:g}), CPU {cpu_s:.2f} s{limit}"
        )
    print(json.dumps(found))
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
