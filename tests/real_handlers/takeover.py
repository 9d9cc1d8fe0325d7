"""A VM changes from the predecessor to our agent and back, with real script handlers on it: `make
handlers` runs this last. No script may run twice, and every status stays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bench import peer, scenarios
from tests.real_handlers.packages import Handler
from waagent.lab.fabric.watching import NotSeen, handlers_of
from waagent.lab.machine.machine import Machine

SCRIPTS = (
    "Microsoft.Azure.Extensions.CustomScript",
    "Microsoft.OSTCExtensions.CustomScriptForLinux",
    "Microsoft.CPlat.Core.RunCommandHandlerLinux",
)
PATIENCE_S, QUIET_S = 240.0, 15.0


def take_over(packages: Sequence[tuple[Handler, Path]], checkout: Path, folder: Path) -> list[str]:
    """What was seen, a line a phase; the last word of a line is `ok` or `WRONG`."""
    chosen = [(handler, path) for handler, path in packages if handler.name in SCRIPTS]
    count, lines = len(chosen), []
    with Machine(
        folder,
        dvd=scenarios.boot_dvd(folder),
        agent=False,
        scheme=scenarios.SCHEME,
    ) as machine:
        ours = machine.read("/etc/waagent.conf").encode()
        peer.put_in(machine, checkout)
        with peer.running(machine):
            machine.fabric.wait_ready(120)
            lines.append(_phase(machine, chosen, 0, count, "the predecessor installs"))
        machine.write("/etc/waagent.conf", ours)
        machine.order("start-agent")
        lines.append(_phase(machine, chosen, 0, count, "ours takes over"))
        lines.append(_phase(machine, chosen, 1, 2 * count, "ours gets new settings"))
        machine.order("stop-agent")
        machine.write("/etc/waagent.conf", peer.CONFIGURATION.encode())
        with peer.running(machine):
            lines.append(_phase(machine, chosen, 1, 2 * count, "the predecessor is back"))
    return lines


def _phase(
    machine: Machine, chosen: Sequence[tuple[Handler, Path]], sequence: int, runs: int, what: str
) -> str:
    since = len(machine.fabric.statuses)
    machine.fabric.set_extensions(
        [
            {
                "name": handler.name,
                "version": handler.version,
                "package": str(path),
                "multi_config": bool(handler.extensions),
                "settings": [
                    {**handler.settings[sequence], "sequence": sequence, "name": name}
                    for name in handler.extensions
                ]
                or [{**handler.settings[sequence], "sequence": sequence}],
            }
            for handler, path in chosen
        ]
    )

    def all_good(fabric: object) -> bool:
        statuses = machine.fabric.statuses
        rows = handlers_of(statuses[-1]) if len(statuses) > since + 1 else []
        told = [row.get("runtimeSettingsStatus", {}) for row in rows]
        good = [
            one
            for one in told
            if one.get("sequenceNumber") == sequence
            and one["settingsStatus"]["status"]["status"] == "success"
        ]
        return len(good) == len(chosen)

    try:
        machine.fabric.wait_for(all_good, PATIENCE_S, what)
        told = f"{len(chosen)} success"
    except NotSeen as error:
        told = f"status: {str(error)[-300:]}"
    time.sleep(QUIET_S)
    ran = machine.run(["sh", "-c", "cat /root/runs | wc -l"]).stdout.strip()
    verdict = "ok" if ran == str(runs) and told.endswith("success") else "WRONG"
    return f"{what:<26} {told}, {ran} scripts ran, {runs} wanted: {verdict}"
