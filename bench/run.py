"""`make bench [PEER=/path]`: measures the agent beside two supervisors and, where a checkout of it
is given, beside its predecessor; prints the tables, writes docs/performance.md and its picture.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import measure, peer, report, scenarios
from bench.rivals import RivalFigures, measure_rival
from waagent.lab.handlers.packages import hello
from waagent.lab.machine.machine import Machine

ROOT = Path(__file__).resolve().parent.parent
KILLS, IDLE_S, STARTS = 24, 60.0, 7
NO_LIMIT = float("inf")

Read = Callable[[scenarios.Figures], float]


def main() -> int:
    """Measure everything once. Exit 0 when every budget is kept, 1 otherwise, 2 usage."""
    checkout = os.environ.get("PEER", "")
    if os.geteuid() != 0:
        print(
            "make bench needs root (namespaces, overlay, loop device); try: sudo make bench",
            file=sys.stderr,
        )
        return 2
    if checkout and not (Path(checkout) / "bin" / "waagent").exists():
        print(f"PEER={checkout}: no bin/waagent in it: give a checkout", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="waagent-bench-") as folder:
        tmp = Path(folder)
        say(f"measuring the agent: {KILLS} kills, 3 times {IDLE_S:.0f} s idle, {STARTS} starts ...")
        ours = measure_agent(tmp)
        rivals = []
        for name in ("supervisord", "circus"):
            say(f"measuring {name} ...")
            place = tmp / name
            place.mkdir()
            rivals.append(measure_rival(name, place, KILLS // 2, IDLE_S / 2))
        say("measuring what an operator waits for: the agent ...")
        peers = None
        with scenarios.started(tmp) as machine:
            waits = scenarios.measure_all(machine, tmp, IDLE_S, say)
        if checkout:
            say("measuring what an operator waits for: its predecessor ...")
            with peer.started(Path(checkout), tmp, scenarios.SCHEME) as machine:
                peers = scenarios.measure_all(machine, tmp, IDLE_S, say)
    tables = (beside_rivals(ours, rivals[0], rivals[1]), beside_predecessor(waits, peers))
    print(report.as_text(tables))
    series = {
        "waagent": tuple(ours["restart_ms"]),
        "supervisord": rivals[0].restart_ms,
        "circus": rivals[1].restart_ms,
    }
    report.write(ROOT / "docs", tables, series, machine_text())
    print("written: docs/performance.md, docs/performance.svg")
    return 0 if all(row.is_kept for table in tables for row in table.rows) else 1


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


def measure_agent(tmp: Path) -> dict[str, Any]:
    """One provisioned VM with a probe port and an extension, so that every resident worker is
    there.
    """
    with Machine(tmp, dvd=scenarios.boot_dvd(tmp)) as machine:
        machine.fabric.wait_ready(90)
        give_extension(machine, tmp)
        for name in ("__init__", "measure", "inside"):
            machine.write(
                f"/root/measuring/bench/{name}.py", (ROOT / "bench" / f"{name}.py").read_bytes()
            )
        argv = ["/usr/lib/waagent/bin/python", "-m", "bench.inside", str(KILLS), str(IDLE_S)]
        inside = machine.run(
            argv, env={"PYTHONPATH": "/root/measuring"}, timeout_s=1500, check=True
        )
        figures: dict[str, Any] = json.loads(inside.stdout.splitlines()[-1])
        figures["start_ms"] = [_start_ms(machine) for _ in range(STARTS)]
    return figures


def give_extension(machine: Machine, tmp: Path) -> None:
    """One handler, enabled: extension_runner is resident from then on."""
    package = tmp / "hello.zip"
    package.write_bytes(hello())
    machine.fabric.set_extensions(
        [
            {
                "name": "Contoso.Hello",
                "version": "1.0.0",
                "package": str(package),
                "public": {"greeting": "Hi"},
            }
        ]
    )
    machine.fabric.wait_extension("Contoso.Hello", deadline_s=60)


def _start_ms(machine: Machine) -> float:
    """A boot of an agent that is provisioned already: from its start until the platform has
    received Ready.
    """
    machine.order("stop-agent")
    machine.run(["rm", "-rf", "/run/waagent"], check=True)
    known = len(machine.fabric.health)
    begun = time.time()
    machine.order("start-agent")
    measure.wait_until(
        lambda: any(item["state"] == "Ready" for item in machine.fabric.health[known:]),
        60,
        "Ready",
        0.02,
    )
    received = next(item for item in machine.fabric.health[known:] if item["state"] == "Ready")
    machine.wait_states(["fabric_client", "environment_monitor"])
    return (float(received["time"]) - begun) * 1000


def beside_rivals(
    ours: dict[str, Any], supervisord: RivalFigures, circus: RivalFigures
) -> report.Table:
    """What supervisors do, and what only we do, with budgets."""
    restart_ms = [
        measure.percentile(values, 0.9)
        for values in (ours["restart_ms"], supervisord.restart_ms, circus.restart_ms)
    ]
    is_quick = restart_ms[0] <= min(50, 0.1 * min(restart_ms[1:]))
    resident_mib = [
        kib / 1024 for kib in (ours["resident_kib"], supervisord.resident_kib, circus.resident_kib)
    ]
    supervisor_ms, start_ms = max(ours["supervisor_ms"]), statistics.median(ours["start_ms"])
    ps_ms = statistics.median(ours["ps_ms"])
    none = (None, None)
    rows = (
        report.Row(
            "restart latency, p90",
            "ms",
            restart_ms[0],
            tuple(restart_ms[1:]),
            "<= 50, <= 0.1 of either",
            is_quick,
        ),
        report.Row(
            f"resident PSS, {len(ours['residents'])} workers",
            "MiB",
            resident_mib[0],
            tuple(resident_mib[1:]),
        ),
        report.Row(
            "idle context switches",
            "/min",
            ours["switches_per_minute"],
            (supervisord.switches_per_minute, circus.switches_per_minute),
        ),
        report.Row(
            "idle CPU",
            "s/h",
            ours["cpu_s_per_hour"],
            (supervisord.cpu_s_per_hour, circus.cpu_s_per_hour),
        ),
        report.Row(
            "supervisor kill -9 -> all READY, max",
            "ms",
            supervisor_ms,
            none,
            "<= 1000",
            supervisor_ms <= 1000,
        ),
        report.Row(
            "start -> Ready, provisioned, median", "ms", start_ms, none, "<= 700", start_ms <= 700
        ),
        report.Row("waagent-ps, median", "ms", ps_ms, none, "<= 60", ps_ms <= 60),
    )
    return report.Table("Beside two supervisors", ("supervisord", "circus"), rows)


def beside_predecessor(ours: scenarios.Figures, peers: scenarios.Figures | None) -> report.Table:
    """What an operator waits for, and what it costs; budgets that are shares of the predecessor's
    figures are not judged without them.
    """

    def row(
        what: str, unit: str, read: Read, limit: float, share: float | None = None
    ) -> report.Row:
        own, other = read(ours), read(peers) if peers is not None else None
        budget = [f"<= {limit:g}"] if limit < NO_LIMIT else []
        budget += [f"<= {share:g} of its"] if share is not None else []
        is_kept = own <= limit and (share is None or other is None or own <= share * other)
        return report.Row(what, unit, own, (other,), ", ".join(budget), is_kept, places=2)

    blobs = (ours.garbage_blobs, peers.garbage_blobs if peers is not None else None)
    rows = (
        row("1 no-op extension, fetched -> reported", "s", lambda it: it.one_s, 0.6),
        row("20 no-op extensions", "s", lambda it: it.twenty_s, 3.0),
        row("20 that sleep 2 s", "s", lambda it: it.sleepers_s, 6.0),
        report.Row(
            "60 s of a goal state that is no XML: status blobs",
            "",
            blobs[0],
            blobs[1:],
            ">= 9",
            blobs[0] >= 9,
            places=0,
        ),
        row("its end -> new extension reported", "s", lambda it: it.recovery_s, 9.0),
        row("CPU of all processes for the 20", "s", lambda it: it.twenty_cpu_s, 2.4),
        row("idle CPU", "s/h", lambda it: it.idle_cpu_s_per_hour, 1.6, 0.5),
        row(
            "idle context switches", "/min", lambda it: it.idle_switches_per_minute, NO_LIMIT, 0.75
        ),
        row("PSS of all processes", "MiB", lambda it: it.resident_kib / 1024, NO_LIMIT, 1.0),
    )
    return report.Table("Beside the predecessor", ("predecessor",), rows)


def machine_text() -> str:
    """The machine in one line."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return (
        f"{os.cpu_count()} cores, {pages * size / 2**30:.0f} GiB, Linux {platform.release()},"
        f" Python {platform.python_version()}, transparent huge pages {huge_pages()},"
        f" {time.strftime('%Y-%m-%d', time.gmtime())}; command: make bench"
    )


def huge_pages() -> str:
    """always, madvise or never: with `always` each process has more memory than it asked for."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return "unknown"
    return text[text.index("[") + 1 : text.index("]")]


if __name__ == "__main__":
    sys.exit(main())
