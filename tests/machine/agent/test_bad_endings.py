"""Seven commands that end badly, beside two handlers that are well: each is reported with its
reason, and the runner that saw them all goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from waagent.lab.machine import Machine

RUNNER = "extension_runner"
NOISE = "head -c 3145728 /dev/urandom; head -c 1000 /dev/urandom >&2; exit 3"

ENDINGS = {
    "Killed": ("exit 0", "kill -9 $$", "Terminated by signal 9 (SIGKILL)"),
    "Segfault": ("exit 0", "kill -SEGV $$", "Terminated by signal 11 (SIGSEGV)"),
    "Terminated": ("exit 0", "kill -TERM $$", "Terminated by signal 15 (SIGTERM)"),
    "Realtime": ("exit 0", "kill -40 $$", "Terminated by signal 40 (SIGRTMIN+6)"),
    "Status255": ("exit 255", "", "Non-zero exit code: 255"),
    "Noise": (NOISE, "", "Non-zero exit code: 3"),
    "Closed": ("exec >&- 2>&-; exit 4", "", "Non-zero exit code: 4"),
}
"""Handler -> its enable script, what the shell of its command does then, and what the platform must be told. `Interpreter` has none."""

OUTCOME = {
    "id": "0" * 32,
    "version": "1.0.0",
    "operation": "enable",
    "extension": "earlier",
    "sequence": 0,
    "goal_state_id": "incarnation_0",
    "boot_id": "another",
    "code": 0,
    "message": "",
    "started_at": 0.0,
    "started_wall_ns": 0,
    "elapsed_s": 1.0,
    "limit_s": 300.0,
}
"""As a journal holds it."""


def test_no_ending_of_a_command_ends_the_runner(
    vm: Machine, a_handler: Callable[..., dict[str, Any]], shown: Callable[[str], None]
) -> None:
    wanted = [
        a_handler(f"Contoso.{name}", script, then=then)
        for name, (script, then, _) in ENDINGS.items()
    ]
    wanted.append(
        a_handler("Contoso.Interpreter", "exit 0", interpreter="/usr/bin/no-such-interpreter")
    )
    healthy = [a_handler("Contoso.First", "succeed 1"), a_handler("Contoso.Second", "succeed 2")]
    began = time.monotonic()
    vm.fabric.set_extensions([healthy[0], *wanted, healthy[1]])

    for name in ("First", "Second"):
        vm.fabric.wait_extension(f"Contoso.{name}", "success")
    healthy_s = time.monotonic() - began
    runner = vm.pid_of(RUNNER)
    said = {name: vm.fabric.wait_extension(f"Contoso.{name}", "error") for name in ENDINGS}
    lost = vm.fabric.wait_extension("Contoso.Interpreter", "error")

    shown(f"two healthy extensions beside {len(wanted)} bad endings succeeded in {healthy_s:.1f} s")
    for name, (_, _, reason) in ENDINGS.items():
        assert said[name]["code"] == 1009
        assert reason in said[name]["formattedMessage"]["message"]
    assert lost["code"] == 1009
    assert "Non-zero exit code: 127" in lost["formattedMessage"]["message"]
    vm.fabric.set_extensions([a_handler("Contoso.Later", "succeed later")])
    vm.fabric.wait_extension("Contoso.Later", "success")
    assert vm.pid_of(RUNNER) == runner
    row = next(row for row in vm.ps()["workers"] if row["name"] == RUNNER)
    assert row["restarts"] == 0, vm.trouble()


def test_a_lane_that_raises_is_reported_and_ends_nobody(
    vm: Machine, a_handler: Callable[..., dict[str, Any]]
) -> None:
    nonsense = {
        "schema": 1,
        "name": "Contoso.Raises",
        "versions": {},
        "extensions": [],
        "outcomes": [{**OUTCOME, "elapsed_s": ["soon"]}],
        "handler": None,
    }
    journal = "/var/lib/waagent/operations/handlers/contoso.raises.json"
    vm.write(journal, json.dumps(nonsense).encode(), 0o600)
    runner = vm.pid_of(RUNNER)

    vm.fabric.set_extensions(
        [a_handler("Contoso.Raises", "succeed never"), a_handler("Contoso.Beside", "succeed 3")]
    )

    vm.fabric.wait_extension("Contoso.Beside", "success")
    status = vm.fabric.wait_extension("Contoso.Raises", "error")
    shown = vm.run(["waagent-ps", "extensions", "--wide"]).stdout
    assert "TypeError" in status["formattedMessage"]["message"]
    assert "tried again with the next goal state" in status["formattedMessage"]["message"]
    assert "the agent failed at this handler" in shown
    assert vm.pid_of(RUNNER) == runner
    vm.run(["rm", journal], check=True)
    vm.fabric.set_extensions([a_handler("Contoso.Raises", "succeed now")])
    vm.fabric.wait_extension("Contoso.Raises", "success")
    assert vm.pid_of(RUNNER) == runner
