"""Who is not in the state file gets nowhere on the bus, and costs the server nothing that others
would notice.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import zmq

from tests.harness.supervising import CHECKOUT, Supervising
from waagent.protocol.bus import envelope, sockets

ASKER = """
def main(worker):
    client = worker.bus.client("echo")
    worker.supervisor.ready()
    answer = client.request("echo.words", {}, deadline_s=60, reason="asking")
    worker.log.info("answered as %s", answer["sender"])
    worker.supervisor.done("asked")
"""
LATE = """
import os, sys, time, zmq
from pathlib import Path
from waagent.protocol.bus import envelope, sockets
dealer = sockets.open_dealer(sockets.new_context(), Path(sys.argv[1]))
while True:
    while dealer.poll(10000):
        message = envelope.unpack(dealer.recv())
        print(message.kind, message.topic, flush=True)
        if message.topic == sockets.INSTANCE:
            dealer.send(envelope.pack("req", 1, "echo.words", 1000, {}))
"""


def assert_it_answers(supervisor: Supervising, room: Callable[[str, str], Path]) -> None:
    supervisor.start("asker", code=room("asker", ASKER))
    supervisor.wait_for("asker", "done")
    assert "answered as asker" in supervisor.log_text()


def test_nothing_of_a_stranger_is_delivered(
    supervisor: Supervising, room: Callable[[str, str], Path], echo: Callable[[], int]
) -> None:
    echo()
    supervisor.wait_for("echo", "ready")

    dealer = sockets.open_dealer(sockets.new_context(), supervisor.paths.bus / "echo")
    heard = dealer.poll(2500)
    try:
        dealer.send(envelope.pack("req", 1, "echo.words", 1000, {}), zmq.NOBLOCK)
        sent = True
    except zmq.Again:
        sent = False

    assert not heard and not sent
    assert_it_answers(supervisor, room)
    assert (
        f"a stranger asked for the bus: pid={os.getpid()} uid={os.getuid()}: not admitted"
        in supervisor.log_text()
    )
    dealer.close()


def test_a_pid_that_is_recorded_late_is_admitted_without_doing_anything(
    supervisor: Supervising, echo: Callable[[], int]
) -> None:
    echo()
    supervisor.wait_for("echo", "ready")
    path = str(supervisor.paths.bus / "echo")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(
        [sys.executable, "-c", LATE, path], stdout=subprocess.PIPE, env=environment
    ) as late:
        until_logged(supervisor, f"pid={late.pid}")

        supervisor.processes["asker"] = late
        supervisor._record()

        assert late.stdout is not None
        assert [late.stdout.readline(), late.stdout.readline()] == [
            b"evt bus.instance\n",
            b"rep echo.words\n",
        ]
        late.kill()


def test_sixty_silent_connections_stop_nobody(
    supervisor: Supervising, room: Callable[[str, str], Path], echo: Callable[[], int]
) -> None:
    echo()
    supervisor.wait_for("echo", "ready")
    silent = []
    for _ in range(60):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(supervisor.paths.bus / "echo"))
        silent.append(connection)

    assert_it_answers(supervisor, room)

    for connection in silent:  # put out after a second
        connection.settimeout(20)
        while connection.recv(4096):
            pass
        connection.close()
    assert supervisor.processes["echo"].poll() is None


def test_noise_that_is_no_zmtp_stops_nobody(
    supervisor: Supervising, room: Callable[[str, str], Path], echo: Callable[[], int]
) -> None:
    echo()
    supervisor.wait_for("echo", "ready")
    for noise in (
        os.urandom(4096),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" + b"\0" * 8 + b"\x7f\x03" + os.urandom(60),
        b"\0" * 10000,
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(supervisor.paths.bus / "echo"))
            connection.send(noise)

    assert_it_answers(supervisor, room)


def until_logged(supervisor: Supervising, text: str) -> None:
    ends_at = time.monotonic() + 20
    while text not in supervisor.log_text():
        assert time.monotonic() < ends_at, supervisor.log_text()
        time.sleep(0.02)
