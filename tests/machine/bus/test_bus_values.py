"""Values with revisions: whoever was stopped has the newest soon after."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Callable

from tests.harness.supervising import Supervising

COUNTER = """
def main(worker):
    server = worker.bus.serve()
    def count(request):
        server.publish("counter.value", {**request.body, "pad": "x" * 20000})
        return {}
    server.on_request("counter.set", ["driver"], count)
    server.publish("counter.private", {"n": 1}, allowed=["driver"])
    worker.supervisor.ready()
    worker.loop.run()
"""
DRIVER = """
def main(worker):
    worker.supervisor.ready()
    client = worker.bus.client("counter")
    for number in range(1, 501):
        client.request("counter.set", {"n": number}, deadline_s=60, reason="counting")
    worker.supervisor.tell(counted=500)
    worker.supervisor.doing("counted")
    worker.loop.run()
"""
WATCHER = """
def main(worker):
    client = worker.bus.client("counter")
    def changed(value, revision):
        worker.log.info("saw n=%d", value["n"])
        worker.supervisor.doing(f"saw {value['n']}")
    client.subscribe("counter.value", changed)
    client.subscribe("counter.private", lambda value, revision: worker.log.info("saw what is private"))
    worker.supervisor.ready()
    worker.loop.run()
"""


def test_a_stopped_subscriber_gets_the_newest_value_and_stops_nobody(
    supervisor: Supervising, room: Callable[[str, str], Path]
) -> None:
    supervisor.beat_s = 1.0
    supervisor.start("counter", serves=True, code=room("counter", COUNTER))
    watcher = supervisor.start("watcher", code=room("watcher", WATCHER))
    supervisor.wait_for("watcher", "ready")
    supervisor.start("driver", code=room("driver", DRIVER))
    supervisor.wait_for("watcher", "heartbeat", lambda beat: beat["doing"].startswith("saw"))

    watcher.send_signal(signal.SIGSTOP)
    supervisor.wait_for(
        "driver", "heartbeat", lambda beat: beat["doing"] == "counted", deadline_s=60
    )
    watcher.send_signal(signal.SIGCONT)

    supervisor.wait_for(
        "watcher", "heartbeat", lambda beat: beat["doing"] == "saw 500", deadline_s=60
    )
    assert "saw what is private" not in supervisor.log_text()
