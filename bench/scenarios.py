"""What an operator waits for, measured alike for our agent and for its predecessor: from a new goal
state to the report, while the platform answers garbage, and what it costs.

`python -m bench.scenarios [one|idle|twenty|sleepers|garbage ...]`, as root, measures ours alone.

"Fetched" is the platform's first answer that carried the new goal state, "reported" the first
status blob in which every extension of the case is a success.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure
from waagent.lab.dvd import write_dvd
from waagent.lab.fabric.watching import handlers_of
from waagent.lab.handlers.packages import handler_zip
from waagent.lab.machine.machine import Machine
from waagent.lab.ovf import Order, ovf_env

PATIENCE_S = 240.0
GARBAGE_S = 60.0
AFTER_S = 1.0  # what is done after the report belongs to the extensions, too
SPARE_S = 25.0  # helper processes that wait for more work have ended, the next poll has been
ONE_ROUNDS = 3
IDLE_WINDOWS, IDLE_S = 3, 60.0
SCHEME = "http"  # nothing of the emulated platform listens on 443

Say = Callable[[str], None]


@dataclass(frozen=True)
class Figures:
    """One agent; times in seconds."""

    one_s: float
    twenty_s: float
    twenty_cpu_s: float
    sleepers_s: float
    garbage_blobs: int
    """Status blobs during GARBAGE_S of a goal state that is no XML."""
    recovery_s: float
    """From the end of that to the report of a new extension."""
    idle_cpu_s_per_hour: float
    idle_switches_per_minute: float
    resident_kib: int
    """PSS of all its processes, with an extension enabled."""


def measure_all(machine: Machine, folder: Path, idle_s: float, say: Say) -> Figures:
    """Every figure of the agent that runs in ``machine``, is Ready and has no extension."""
    found: dict[str, Any] = {}
    for measure_one in Scenarios(machine, folder, idle_s, say).by_name().values():
        found.update(measure_one())
    return Figures(**found)


class Scenarios:
    """Gives goal states to one machine and waits for their reports. Each scenario returns its
    fields of Figures, and says them.
    """

    def __init__(self, machine: Machine, folder: Path, idle_s: float, say: Say) -> None:
        self._machine, self._folder, self._idle_s, self._say = machine, folder, idle_s, say

    def by_name(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """The scenarios in the order in which they are measured."""
        return {
            "one": self.one,
            "idle": self.idle,
            "twenty": self.twenty,
            "sleepers": self.sleepers,
            "garbage": self.garbage,
        }

    def one(self) -> dict[str, Any]:
        """One extension that does nothing."""
        seconds = []
        for number in range(ONE_ROUNDS):
            time.sleep(SPARE_S)
            seconds.append(self.run(f"One{number}", 1)[0])
        self._say(f"1 extension: {' '.join(f'{one:.2f}' for one in seconds)} s")
        return {"one_s": statistics.median(seconds)}

    def idle(self) -> dict[str, Any]:
        """Nothing to do, with an extension enabled."""
        time.sleep(SPARE_S)
        pids = agent_pids(self._machine)
        kib = measure.pss_kib(pids)
        cpu_s, switches = min(measure.idle(pids, self._idle_s) for _ in range(IDLE_WINDOWS))
        self._say(f"{len(pids)} processes, {kib / 1024:.1f} MiB, idle {cpu_s:.2f} s/h")
        return {
            "resident_kib": kib,
            "idle_cpu_s_per_hour": cpu_s,
            "idle_switches_per_minute": switches,
        }

    def twenty(self) -> dict[str, Any]:
        """20 extensions that do nothing."""
        time.sleep(SPARE_S)
        seconds, cpu_s = self.run("Twenty", 20)
        self._say(f"20 extensions: {seconds:.2f} s, {cpu_s:.2f} s of CPU")
        return {"twenty_s": seconds, "twenty_cpu_s": cpu_s}

    def sleepers(self) -> dict[str, Any]:
        """20 extensions that sleep 2 s."""
        time.sleep(SPARE_S)
        seconds, _ = self.run("Sleepers", 20, sleep_s=2.0)
        self._say(f"20 that sleep 2 s: {seconds:.2f} s")
        return {"sleepers_s": seconds}

    def garbage(self) -> dict[str, Any]:
        """The goal state is no XML for GARBAGE_S."""
        time.sleep(SPARE_S)
        blobs, seconds = self.run_garbage()
        self._say(f"garbage: {blobs} blobs in {GARBAGE_S:.0f} s, whole after {seconds:.1f} s")
        return {"garbage_blobs": blobs, "recovery_s": seconds}

    def run(self, name: str, count: int, sleep_s: float = 0.0) -> tuple[float, float]:
        """Seconds from fetched to reported for ``count`` new handlers, and the seconds of CPU of
        all processes of the machine meanwhile, commands of the extensions included.
        """
        fabric = self._machine.fabric
        fabric.forget()
        before_s = machine_cpu_s(self._machine)
        set_at = time.time()
        handlers = self._give(name, count, sleep_s)
        at = self._reported(handlers)
        fetched = next(
            item.time
            for item in fabric.recorded
            if item.time >= set_at and item.status == 200 and "comp=goalstate" in item.path.lower()
        )
        time.sleep(AFTER_S)
        return at - fetched, machine_cpu_s(self._machine) - before_s

    def run_garbage(self) -> tuple[int, float]:
        """Status blobs while the goal state is no XML, and seconds from its end to the report of an
        extension that is new then.
        """
        fabric = self._machine.fabric
        fabric.fault("goal_state", "html")
        begun = time.time()
        time.sleep(GARBAGE_S)
        ended = time.time()
        blobs = sum(begun <= one["lab"]["time"] <= ended for one in fabric.statuses)
        handlers = self._give("Recovered", 1, 0.0)
        fabric.clear_faults()
        return blobs, self._reported(handlers) - ended

    def _give(self, name: str, count: int, sleep_s: float) -> frozenset[str]:
        package = self._folder / f"sleeps-{sleep_s:g}.zip"
        pause = f"sleep {sleep_s:g}; " if sleep_s else ""
        package.write_bytes(handler_zip({"enable": f"{pause}report success 0 done"}))
        names = [f"Bench.{name}{number}" for number in range(count)]
        settings = {"version": "1.0.0", "package": str(package), "public": {"name": "bob"}}
        self._machine.fabric.set_extensions([{"name": name, **settings} for name in names])
        return frozenset(names)

    def _reported(self, handlers: frozenset[str]) -> float:
        def found(fabric: Any) -> float | None:
            done = (one for one in fabric.statuses if handlers <= successes_in(one))
            return next((float(one["lab"]["time"]) for one in done), None)

        return self._machine.fabric.wait_for(found, PATIENCE_S, f"success of {len(handlers)}")


def successes_in(document: dict[str, Any]) -> set[str]:
    """The handlers that are ready and whose extension is a success, in one status document."""
    return {
        entry["handlerName"]
        for entry in handlers_of(document)
        if entry.get("status") == "Ready"
        and entry.get("runtimeSettingsStatus", {})
        .get("settingsStatus", {})
        .get("status", {})
        .get("status")
        == "success"
    }


def machine_pids(machine: Machine) -> list[int]:
    """All processes of the machine, as this side counts them."""
    space = os.readlink(f"/proc/{machine.init}/ns/pid")
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.readlink(f"/proc/{name}/ns/pid") == space:
                found.append(int(name))
        except OSError:  # ended meanwhile
            continue
    return found


def agent_pids(machine: Machine) -> list[int]:
    """Those that belong to the agent."""
    return [
        pid
        for pid in machine_pids(machine)
        if pid != machine.init and b"waagent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def machine_cpu_s(machine: Machine) -> float:
    """CPU time of the machine's processes so far, of those that were waited for, too."""
    ticks = 0
    for pid in machine_pids(machine):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def boot_dvd(folder: Path) -> Path:
    """A DVD that provisions a user."""
    order = Order(user_name="azureuser", password="Bench-1-only")
    return write_dvd(folder / "boot.iso", ovf_env(order))


@contextmanager
def started(folder: Path) -> Iterator[Machine]:
    """A machine with our agent, freshly provisioned, on the platform that the predecessor gets."""
    with Machine(folder, dvd=boot_dvd(folder), scheme=SCHEME) as machine:
        machine.fabric.wait_ready(90)
        machine.wait_states(("environment_monitor", "fabric_client"))
        yield machine


def main() -> int:
    """The scenarios named on the command line, or all."""
    with tempfile.TemporaryDirectory(prefix="waagent-bench-") as name:
        folder = Path(name)
        with started(folder) as machine:
            known = Scenarios(machine, folder, IDLE_S, lambda text: print(text, flush=True))
            for scenario in sys.argv[1:] or known.by_name():
                known.by_name()[scenario]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
