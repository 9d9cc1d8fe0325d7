"""The worker of CONTRIBUTING.md runs: in a machine whose agent is built from a copy of the tree with
it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.new_worker import NAME, ROOT, copy_with_worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a machine")

MACHINE = f"""
import json, sys, tempfile
from pathlib import Path
from waagent.lab.machine import Machine
with Machine(Path(sys.argv[1]), fabric=True, sshd=False) as machine:
    machine.wait_states(["{NAME}"])
    row = machine.worker("{NAME}")
    page = machine.run(["waagent", "-show-configuration"], check=True).stdout
    machine.write("/etc/waagent.conf", b"Greeter.Enabled=n\\n")
    machine.run(["waagent", "-reload"], check=True)
    machine.wait_states(["{NAME}"], "OFF")
print(json.dumps({{"row": row, "page": page}}))
"""


def test_it_runs_and_its_option_switches_it_off(tmp_path: Path) -> None:
    copy = copy_with_worker(tmp_path)
    (copy / ".cache").mkdir()
    for kept in ("apt", "wheels"):
        (ROOT / ".cache" / kept).mkdir(parents=True, exist_ok=True)
        (copy / ".cache" / kept).symlink_to(ROOT / ".cache" / kept)
    (copy / ".cache" / "machine").symlink_to(ROOT / ".cache" / "machine")
    program = tmp_path / "machine.py"
    program.write_text(MACHINE)

    ran = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert ran.returncode == 0, ran.stderr[-4000:]
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["row"]["doing"] == "waiting for greetings"
    assert said["row"]["uid"] == 64513
    assert "Greeter.Enabled = True" in said["page"]
