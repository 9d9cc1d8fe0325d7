"""The emulated platform on loopback, and the real fabric_client and certificate_keeper beside
rooms of the test in place of the others.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.supervising import Supervising, row_of
from waagent.lab.fabric.fabric import Fabric
from waagent.lab.fabric.http import free_port

CLIENT = """
from waagent.workers.fabric_client.client import FabricClient
from waagent.workers.fabric_client.endpoint import Ports
from waagent.workers.fabric_client.host_health import Pace
def main(worker):
    client = FabricClient(worker, Ports({wire}, {plugin}, {wire}, "127.0.0.1"), Pace({pace}))
    client.serve()
    client.prepare()
    worker.supervisor.ready()
    client.poll()
    worker.loop.run()
"""
ENVIRONMENT = """
def main(worker):
    server = worker.bus.serve()
    server.publish("environment_monitor.endpoint", {{"address": "{address}", "source": "route"}})
    server.on_request("environment_monitor.reachable", ("fabric_client",), lambda request: {{"reachable": {reachable}}})
    worker.supervisor.ready()
    worker.loop.run()
"""
ASKER = """
import json
def main(worker):
    client = worker.bus.client("fabric_client")
    asked = {asked}
    def done(topic, body, error):
        body = None if body is None else {{key: value if not isinstance(value, bytes) else repr(value) for key, value in body.items()}}
        worker.log.info("ANSWER %s", json.dumps([topic, body, error]))
    worker.supervisor.ready()
    for topic, body, deadline_s in asked:
        client.ask(topic, body, deadline_s=deadline_s, done=lambda answer, error, topic=topic: done(topic, answer, error))
    client.subscribe("fabric_client.goal_state", lambda value, revision: done("fabric_client.goal_state", value, ""))
    worker.loop.run()
"""
PERIOD_S = 1


class Stage:
    """A machine with the workers under test. Invariant: everything lives below one short root in
    /tmp.
    """

    def __init__(self, root: Path, fabric: Fabric, shown: Callable[[str], None]) -> None:
        self.fabric, self.root = fabric, root
        self.supervisor = Supervising(root, beat_s=1.0, shown=shown)
        self.supervisor.paths.cache.mkdir(parents=True)
        self.supervisor.paths.library.mkdir(parents=True)
        self._number = 0
        self.pace = ""

    def _code(self, text: str) -> Path:
        self._number += 1
        path = self.root / f"code{self._number}.py"
        path.write_text(text)
        return path

    def environment(self, *, reachable: bool = False, address: str | None = None) -> None:
        code = self._code(
            ENVIRONMENT.format(address=address or self.fabric.address, reachable=reachable)
        )
        self.supervisor.start("environment_monitor", serves=True, code=code)

    def client(
        self,
        ports: tuple[int, int] | None = None,
        *,
        more: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        wire, plugin = ports or (self.fabric.wire_port, self.fabric.plugin_port)
        configuration = {
            "Extensions.GoalStatePeriod": PERIOD_S,
            "Extensions.Enabled": True,
            **(more or {}),
        }
        process = self.supervisor.start(
            "fabric_client",
            configuration=configuration,
            serves=True,
            code=self._code(CLIENT.format(wire=wire, plugin=plugin, pace=self.pace)),
            row=row_of("fabric_client"),
            **options,
        )
        self.supervisor.wait_for("fabric_client", "ready")
        return process

    def keeper(self) -> None:
        self.supervisor.start(
            "certificate_keeper", configuration={"Lib.Dir": "/var/lib/waagent"}, serves=True
        )

    def ask(self, name: str, *asked: tuple[str, dict[str, Any], float]) -> None:
        self.supervisor.start(name, code=self._code(ASKER.format(asked=list(asked))))

    def answers(self, topic: str) -> list[tuple[dict[str, Any] | None, str]]:
        found = []
        for line in self.supervisor.log_text().splitlines():
            if " ANSWER [" in line:
                said = json.loads(line.partition(" ANSWER ")[2])
                if said[0] == topic:
                    found.append((said[1], said[2]))
        return found

    def until(self, is_true: Callable[[], Any], what: str, deadline_s: float = 90.0) -> Any:
        ends_at = time.monotonic() + deadline_s
        while time.monotonic() < ends_at:
            value = is_true()
            if value:
                return value
            time.sleep(0.05)
        log = self.supervisor.log_text()[-5000:]
        raise AssertionError(
            f"{what} did not happen in {deadline_s:g} s; fabric complains {self.fabric.complaints};"
            f" log:\n{log}"
        )


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric("127.0.0.1", free_port(), free_port(), scheme="http") as platform:
        yield platform


@pytest.fixture
def stage(fabric: Fabric, shown: Callable[[str], None]) -> Iterator[Stage]:
    root = Path(tempfile.mkdtemp(prefix="wa-", dir="/tmp"))
    made = Stage(root, fabric, shown)
    try:
        with made.supervisor:
            yield made
    finally:
        shutil.rmtree(root, ignore_errors=True)
