"""Watches the host name and has a changed one published to the platform's DNS
(Provisioning.MonitorHostName).

What was published last is in `<lib>/published_hostname`, which other programs read. The work is
done by a program of its own (`publish_host_name`), one at a time; a name that could not be
published is told once and tried again at its next change, or at the next start.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from waagent.distro import our_python, programs
from waagent.distro.files import read_state_json, write_atomic
from waagent.distro.run import tool_environment
from waagent.workers.environment_monitor import network

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

PUBLISHED = "published_hostname"
PERIOD_S = 30.0
LIMIT_S = 90.0
_PUBLISH = "waagent.workers.environment_monitor.publish_host_name"
_LOOK_S = 0.5
_SAID_BYTES = 4096


class HostName:
    """The name as the network knows it. Invariant: at most one publication is under way."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._paths = worker.paths.configured(worker.configuration)
        self._program: programs.Program | None = None
        self._name = ""
        self._tried = ""
        self._ends_at = 0.0
        self.address = ""
        """The WireServer's."""

    def watch(self) -> None:
        """From now on, unless the configuration says no."""
        if self._worker.configuration.get("Provisioning.MonitorHostName"):
            period = self._worker.configuration.get("Provisioning.MonitorHostNamePeriod")
            self._worker.loop.every(float(period or PERIOD_S), self.look)
            self.look()

    def look(self) -> None:
        """Publish the name when it is another one; before provisioning it is not this VM's own."""
        name = socket.gethostname()
        if self._program is not None or name == self._tried or not self._paths.provisioned.exists():
            return
        if self._published() == name:
            self._tried = name
            return
        if (
            not self._published()
            and read_state_json(self._paths.library / "provisioning.json") is None
        ):
            self._keep(name)  # whoever has provisioned this VM has told the network, too
            return
        routes = network.read_routes(self._worker.paths)
        configured = str(self._worker.configuration.get("Network.Interface") or "")
        interfaces = network.interfaces_to_ask(self._worker.paths, routes, configured)
        if interfaces:
            self._begin(interfaces[0].name, name)

    def _keep(self, name: str) -> None:
        """Note that ``name`` is what the network knows."""
        self._tried = name
        write_atomic(self._paths.library / PUBLISHED, name.encode(), mode=0o644)

    def _begin(self, interface: str, name: str) -> None:
        self._name = self._tried = name
        argv = our_python.argv(
            _PUBLISH,
            str(self._paths.root),
            interface,
            name,
            self.address,
            title="publish host name",
        )
        self._worker.log.info("publishing the host name %s on %s", name, interface)
        self._program = programs.start(argv, tool_environment(), stdout=programs.PIPE)
        self._ends_at = self._worker.loop.now() + LIMIT_S
        self._worker.loop.after(_LOOK_S, self._wait)

    def _wait(self) -> None:
        program = self._program
        assert program is not None
        if program.poll() is None:
            if self._worker.loop.now() < self._ends_at:
                self._worker.loop.after(_LOOK_S, self._wait)
                return
            program.kill()
            program.wait(1.0)
        try:
            said = os.read(program.streams[1], _SAID_BYTES).decode("utf-8", "replace").strip()
        except OSError:
            said = ""
        program.close()
        self._program = None
        if said == "published":
            self._keep(self._name)
            self._worker.log.info("the host name %s is published", self._name)
            return
        self._worker.log.warning(
            "the host name %s is not published: %s: the VM keeps its addresses; set the name again"
            " to try anew",
            self._name,
            said.partition(": ")[2][:300] or f"it took longer than {LIMIT_S:.0f} s",
        )

    def _published(self) -> str:
        try:
            return (self._paths.library / PUBLISHED).read_text("utf-8", "replace").strip()
        except OSError:
            return ""
