"""`make handlers SOURCES=DIR PEER=DIR [GO=…]`: each real handler through its life, under our agent and
under its predecessor, on the emulated platform; prints a table.

SOURCES holds checkouts of the public repositories, named as they are there; PEER is a checkout of
Azure/WALinuxAgent; GO names compilers, separated by colons; packages are kept in KEEP. Results are words of the status blob.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from bench import peer, scenarios
from tests.real_handlers import takeover
from tests.real_handlers.packages import HANDLERS, Handler, LeftOut
from waagent.lab.fabric.watching import NotSeen, handlers_of
from waagent.lab.machine.machine import Machine

STEP_S = 120.0
SETTLED_S = 10.0
STEPS = ("install, enable", "new settings", "the same again", "disable", "uninstall")
Cells = dict[tuple[str, str], str]


class Package(NamedTuple):
    """A handler and its package."""

    handler: Handler
    path: Path


def packages(sources: Path, compilers: Sequence[str], folder: Path) -> list[Package]:
    """All that can be made; what is left out is said."""
    made = []
    for handler in HANDLERS:
        path = folder / f"{handler.name}.zip"
        if path.exists():
            made.append(Package(handler, path))
            continue
        try:
            handler.make(sources, compilers, path)
        except LeftOut as error:
            print(f"left out {handler.name} {handler.version}: {error}", flush=True)
            continue
        made.append(Package(handler, path))
    return made


def live(machine: Machine, package: Package) -> Cells:
    """The handler's whole life; what the platform was told after each step."""
    handler, cells = package.handler, {}
    machine.run(["rm", "-f", "/root/runs"])
    for number, step in enumerate(STEPS):
        settings = dict(handler.settings[min(number, 1)])
        state = {"disable": "disabled", "uninstall": "uninstall"}.get(step, "enabled")
        want(machine, package, settings, min(number, 1), state)
        told = after(machine, handler, step, min(number, 1))
        ran = machine.run(["sh", "-c", "cat /root/runs 2>/dev/null | wc -l"]).stdout.strip()
        cells[handler.name, step] = told + (f", {ran} runs" if ran != "0" else "")
    return cells


def want(
    machine: Machine, package: Package, settings: Mapping[str, Any], sequence: int, state: str
) -> None:
    """One goal state with this handler alone."""
    handler = package.handler
    sets = [{**settings, "sequence": sequence, "name": name} for name in handler.extensions]
    if handler.extensions and state != "enabled":
        sets = [{**one, "state": "disabled"} for one in sets]
        state = "enabled" if state == "disabled" else state
    machine.fabric.set_extensions(
        [
            {
                "name": handler.name,
                "version": handler.version,
                "state": state,
                "package": str(package.path),
                "multi_config": bool(handler.extensions),
                "settings": sets or [{**settings, "sequence": sequence}],
            }
        ]
    )


def after(machine: Machine, handler: Handler, step: str, sequence: int) -> str:
    """What the platform is told once the step is done."""
    begun, since = time.monotonic(), len(machine.fabric.statuses)
    last, steady_since = "", begun
    while time.monotonic() - begun < STEP_S:
        statuses = machine.fabric.statuses
        if len(statuses) > since:
            rows = [one for one in handlers_of(statuses[-1]) if one["handlerName"] == handler.name]
            said = "; ".join(_said(row, handler, sequence) for row in rows) or "gone"
            if said != last:
                last, steady_since = said, time.monotonic()
            is_done = _is_done(said, step) or (not handler.has_status and step in STEPS[:3])
            if is_done and time.monotonic() - steady_since >= SETTLED_S:
                return said
        time.sleep(0.3)
    return f"{last} (not done after {STEP_S:g} s)"


def _is_done(said: str, step: str) -> bool:
    if step == "uninstall":
        return said == "gone"
    if step == "disable":
        return "Ready" not in said.replace("NotReady", "") or "none" in said
    return not any(word in said for word in ("transitioning", "Installing", "waiting"))


def _said(row: Mapping[str, Any], handler: Handler, sequence: int) -> str:
    status = row.get("runtimeSettingsStatus") or {}
    told = (status.get("settingsStatus") or {}).get("status") or {}
    shown = told.get("status", "none")
    number = status.get("sequenceNumber", "-")
    return f"{row['status']}, {shown}, seq {number}"


def under(context: AbstractContextManager[Machine], made: Sequence[Package]) -> Cells:
    """Every handler in one machine."""
    cells: Cells = {}
    with context as machine:
        for package in made:
            if package.handler.python_command:
                path = f"/etc/waagent/sandbox.d/{package.handler.name}.conf"
                machine.write(path, b"PythonCommand=y\n")
            try:
                cells.update(live(machine, package))
            except NotSeen as error:
                cells[package.handler.name, STEPS[0]] = f"not seen: {str(error)[:80]}"
            print(f"  {package.handler.name} done", flush=True)
    return cells


def main() -> int:
    """Print the table; 0 when both agents told the platform the same."""
    sources, checkout = Path(os.environ["SOURCES"]), os.environ.get("PEER", "")
    compilers = [one for one in os.environ.get("GO", "").split(":") if one]
    with tempfile.TemporaryDirectory(prefix="waagent-handlers-") as name:
        folder = Path(name)
        kept = Path(os.environ.get("KEEP") or folder)
        made = packages(sources, compilers, kept)
        chosen = [one for one in made if not sys.argv[1:] or one.handler.name in sys.argv[1:]]
        print("our agent:", flush=True)
        ours = under(scenarios.started(folder), chosen)
        theirs: Cells = {}
        lines: list[str] = []
        if checkout:
            print("its predecessor:", flush=True)
            theirs = under(peer.started(Path(checkout), folder, "http"), chosen)
            lines = takeover.take_over(made, Path(checkout), folder)
    differ = 0
    for package in chosen:
        print(f"\n{package.handler.name} {package.handler.version}")
        for step in STEPS:
            mine, other = (cells.get((package.handler.name, step), "-") for cells in (ours, theirs))
            differs = bool(theirs) and mine != other
            differ += differs
            print(f"  {step:<16} {mine:<44} {other}{'   <- differs' if differs else ''}")
    print(f"\n{len(chosen)} handlers, {differ} differences")
    print("\n".join(["", "From the predecessor to ours and back:", *lines] if lines else []))
    wrong = sum(line.endswith("WRONG") for line in lines)
    return 1 if differ or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
