"""An admitted peer that floods the bus: what is too much is dropped and counted, the server's
memory stays, others are served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import psutil
import pytest

from tests.harness.supervising import Supervising

SERVER = """
def main(worker):
    server = worker.bus.serve()
    server.on_request("echo.words", ["asker", "flooder"], lambda request: {})
    server.on_request("echo.counts", ["asker"], lambda request: dict(server.counts))
    worker.supervisor.ready()
    worker.loop.run()
"""
FLOODER = """
import zmq
from waagent.protocol.bus import sockets
HEAD = b"\\x96\\x01\\xa3evt\\x00\\xa3a.b\\x00\\x81\\xa1x"
def frames():
    kind = worker_configuration["flood"]
    if kind == "frames in one message":
        yield [b"x"] * 400_000
    elif kind == "messages of one byte":
        for _ in range(400_000):
            yield [b"x"]
    elif kind == "empty maps":
        for _ in range(40):
            yield [HEAD + b"\\xdd\\x00\\x0f\\x00\\x00" + b"\\x80" * 0xF0000]
            yield [HEAD + b"\\xdc\\x00\\xf0" + (b"\\xdc\\x0f\\xff" + b"\\x80" * 0xFFF) * 0xF0]
    elif kind == "deep arrays":
        for _ in range(40):
            yield [HEAD + b"\\xdc\\x0f\\xff" * 340_000]
def main(worker):
    global worker_configuration
    worker_configuration = worker.configuration
    worker.supervisor.ready()
    dealer = sockets.open_dealer(worker.bus.context, worker.paths.bus / "echo")
    dealer.recv_multipart()
    dealer.setsockopt(zmq.SNDTIMEO, 20000)
    for parts in frames():
        for part in parts[:-1]:
            dealer.send(part, zmq.SNDMORE)
        dealer.send(parts[-1])
    worker.log.info("sent all")
    while dealer.poll(500):
        dealer.recv()
    worker.supervisor.done("flooded")
    dealer.close()
"""
ASKER = """
def main(worker):
    client = worker.bus.client("echo")
    worker.supervisor.ready()
    client.request("echo.words", {}, deadline_s=60, reason="asking")
    def counts():
        return dict(client.request("echo.counts", {}, deadline_s=60, reason="asking"))
    while True:  # until it has taken all in
        counted = counts()
        worker.wait(lambda: False, 0.5, "letting it take the flood in")
        if counted == counts() and bool(counted) == worker.configuration.get("flooded", False):
            break
    worker.log.info("counted %s", counted)
    worker.supervisor.done("asked")
"""
GROWTH_LIMIT_KIB = 8 * 1024


@pytest.mark.parametrize(
    "flood", ["frames in one message", "messages of one byte", "empty maps", "deep arrays"]
)
def test_a_flood_leaves_no_trace_in_memory(
    supervisor: Supervising,
    room: Callable[[str, str], Path],
    flood: str,
    shown: Callable[[str], None],
) -> None:
    server = supervisor.start("echo", serves=True, code=room("echo", SERVER))
    asker = room("asker", ASKER)
    supervisor.start("asker", code=asker)
    supervisor.wait_for("asker", "done")
    before_kib = psutil.Process(server.pid).memory_full_info().pss // 1024
    assert before_kib is not None

    supervisor.start("flooder", configuration={"flood": flood}, code=room("flooder", FLOODER))
    supervisor.wait_for("flooder", "done", deadline_s=120)
    supervisor.messages.clear()
    supervisor.start("asker", configuration={"flooded": True}, code=asker)
    supervisor.wait_for("asker", "done", deadline_s=120)

    after_kib = psutil.Process(server.pid).memory_full_info().pss // 1024
    assert after_kib is not None
    status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    counted = [line for line in supervisor.log_text().splitlines() if "counted" in line][-1]
    told = counted.partition("counted")[2]
    shown(
        f"flood of {flood}: PSS {before_kib} KiB before, {after_kib} KiB after, RSS at most"
        f" {peak_kib} KiB;{told}"
    )
    assert "'bad'" in counted
    assert "dropped what flooder sent: bus: " in supervisor.log_text()
    assert after_kib - before_kib < GROWTH_LIMIT_KIB
    assert server.poll() is None
