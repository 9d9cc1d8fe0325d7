"""`waagent -start`, `-reload`, `-stop` and waagent-ps with a real supervisor and real workers, in a
network of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.supervisor.commands import about, manual_pages

CHECKOUT = Path(about.__file__).resolve().parents[2]
PATIENCE_S = 60.0


class Agent:
    """An agent below a root prefix, inside namespaces that one sleeping process holds open."""

    def __init__(self, root: Path, holder: int, checkout: Path = CHECKOUT) -> None:
        self.root, self.holder, self.checkout = root, holder, checkout

    def run(self, *argv: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run the module ``argv[0]`` in the namespaces."""
        become = ["setpriv", f"--reuid={user}", "--clear-groups"] if user is not None else []
        enter = [
            "nsenter",
            f"--target={self.holder}",
            "--net",
            "--pid",
            "--mount",
            f"--wd={self.checkout}",
            *become,
        ]
        return subprocess.run(
            [*enter, sys.executable, "-m", argv[0], "--root", str(self.root), *argv[1:]],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "WAAGENT_WITHOUT": "cgroups"},
        )

    def waagent(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`waagent`."""
        return self.run("waagent", *words)

    def ps(self, *words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        """`waagent-ps`."""
        return self.run("waagent.supervisor.ps.main", *words, user=user)

    def table(self) -> dict[str, Any]:
        """`waagent-ps --json`."""
        found: dict[str, Any] = json.loads(self.ps("--json").stdout)
        return found

    def worker(self, name: str) -> dict[str, Any]:
        """One worker of it, or an empty map."""
        return next((worker for worker in self.table()["workers"] if worker["name"] == name), {})

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a pid of the namespaces."""
        enter = ["nsenter", f"--target={self.holder}", "--pid", "--mount"]
        subprocess.run([*enter, "kill", f"-{number}", str(pid)], check=True, timeout=PATIENCE_S)


def wait_for(what: Callable[[], bool], seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, seen()
        time.sleep(0.1)


@pytest.fixture
def agent() -> Iterator[Agent]:
    if os.geteuid() != 0:
        pytest.skip("needs root for namespaces")
    # short: a socket's path has at most 107 bytes
    root = Path(tempfile.mkdtemp(prefix="wa", dir="/tmp"))
    root.chmod(0o755)
    (root / "etc").mkdir()
    (root / "etc/waagent.conf").write_text(manual_pages.sample_configuration())
    unshared = subprocess.Popen(
        [
            "unshare",
            "--net",
            "--pid",
            "--fork",
            "--mount",
            "--mount-proc",
            "--kill-child",
            "sleep",
            "1000",
        ]
    )
    holder = Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children")
    wait_for(lambda: bool(holder.read_text().split()), lambda: "unshare has made no process")
    wait_for(
        lambda: Path(f"/proc/{holder.read_text().split()[0]}/comm").read_text() == "sleep\n",
        lambda: "no sleep in the namespace",
    )
    yield Agent(root, int(holder.read_text().split()[0]))
    unshared.kill()
    unshared.wait()
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.usefixtures("readable_python")
def test_an_agent_is_started_watched_reloaded_and_stopped(agent: Agent) -> None:
    assert agent.waagent("-start").returncode == 0
    wait_for(
        lambda: agent.worker("environment_monitor").get("state") == "READY",
        lambda: agent.ps().stdout,
    )

    pid_file = agent.root / "var/run/waagent.pid"
    assert pid_file.read_text() == f"{agent.table()['supervisor']['pid']}\n"
    again, daemon = agent.waagent("-start"), agent.waagent("-daemon")
    assert pid_file.read_text() == f"{agent.table()['supervisor']['pid']}\n"
    assert (again.returncode, daemon.returncode) == (1, 1)
    assert (
        "already running: pid" in again.stderr
        and str(agent.root / "run/waagent/lock") in daemon.stderr
    )

    listing = agent.ps(user=65534)
    assert (
        "environment_monitor  READY" in listing.stdout
        and agent.ps("restart", "fabric_client", user=65534).returncode == 4
    )

    (agent.root / "etc/waagent.conf").write_text("LBProbeResponder=n\n")
    assert agent.waagent("-reload").returncode == 0
    wait_for(
        lambda: agent.worker("probe_responder").get("state") == "OFF", lambda: agent.ps().stdout
    )

    stopped = agent.waagent("-stop")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert not pid_file.exists()
    assert agent.ps().returncode == 3
    time.sleep(1)  # a guardian that had not understood would have started it again by now
    assert agent.ps().returncode == 3


def test_the_guardian_replaces_a_supervisor_that_was_killed(agent: Agent) -> None:
    agent.waagent("-start")
    wait_for(
        lambda: agent.worker("environment_monitor").get("state") == "READY",
        lambda: agent.ps().stdout,
    )
    first = agent.table()["supervisor"]["pid"]

    agent.kill(first, signal.SIGKILL)

    wait_for(
        lambda: (
            agent.table()["source"] == "supervisor" and agent.table()["supervisor"]["pid"] != first
        ),
        lambda: agent.ps().stdout,
    )
    wait_for(
        lambda: agent.worker("environment_monitor").get("state") == "READY",
        lambda: agent.ps().stdout,
    )


@pytest.mark.usefixtures("readable_python")
def test_a_stopped_supervisor_and_a_replaced_worker_are_shown(agent: Agent) -> None:
    agent.waagent("-start")
    wait_for(
        lambda: agent.worker("fabric_client").get("state") == "READY", lambda: agent.ps().stdout
    )
    before = agent.worker("fabric_client")["pid"]

    assert agent.ps("restart", "fabric_client").returncode == 0
    wait_for(
        lambda: agent.worker("fabric_client").get("pid") not in (None, before),
        lambda: agent.ps().stdout,
    )
    assert agent.worker("fabric_client")["restarts"] == 1
    assert agent.ps("restart", "nobody").returncode == 2

    supervisor = agent.table()["supervisor"]["pid"]
    agent.kill(supervisor, signal.SIGSTOP)
    stopped = agent.ps()
    agent.kill(supervisor, signal.SIGCONT)
    assert stopped.returncode == 3
    assert stopped.stdout.startswith(
        f"SUPERVISOR NOT ANSWERING: pid {supervisor} stopped (state T)"
    )
    assert "fabric_client        READY" in stopped.stdout


@pytest.mark.usefixtures("readable_python")
def test_a_new_build_on_disk_is_taken_up_without_anything_being_forked(agent: Agent) -> None:
    copy = agent.root / "copy"
    names = ("waagent", "supervisor", "workers", "protocol", "distro", "etc", "lab")
    for name in names:
        shutil.copytree(CHECKOUT / name, copy / name, symlinks=True)
    old = Agent(agent.root, agent.holder, copy)
    assert old.waagent("-start").returncode == 0
    wait_for(lambda: old.worker("fabric_client").get("state") == "READY", lambda: old.ps().stdout)
    first = old.table()["supervisor"]["pid"]

    # as dpkg and pip do it: written beside, renamed
    new = copy / "waagent/__init__.py.new"
    new.write_text((copy / "waagent/__init__.py").read_text() + "# another build\n")
    begun = time.monotonic()
    new.rename(copy / "waagent/__init__.py")

    wait_for(lambda: old.table()["supervisor"]["pid"] not in (None, first), lambda: old.ps().stdout)
    print(f"another build was taken up after {time.monotonic() - begun:.1f} s")
    wait_for(lambda: old.worker("fabric_client").get("state") == "READY", lambda: old.ps().stdout)
    assert "another build is installed" in (agent.root / "var/log/waagent.log").read_text()
