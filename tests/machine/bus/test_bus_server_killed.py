"""A server is killed under its clients: what they asked is answered by the next one."""

from __future__ import annotations

import re
import time
from pathlib import Path
from statistics import median
from typing import Callable

from tests.harness.supervising import Supervising

SLOW_ECHO = """
import os
def main(worker):
    server = worker.bus.serve()
    def later(request):
        worker.loop.after(0.02, lambda: request.answer({"pid": os.getpid(), "number": request.body["number"]}))
    server.on_request("echo.words", ["asker"], later)
    server.publish("echo.pid", {"pid": os.getpid()})
    worker.supervisor.ready()
    worker.loop.run()
"""
ASKER = """
def main(worker):
    client = worker.bus.client("echo")
    number = 0
    def ask():
        nonlocal number
        number += 1
        client.ask("echo.words", {"number": number}, deadline_s=60, done=answered)
    def answered(body, error):
        worker.log.info("answered %s %s", f"by={body['pid']} number={body['number']} asked={number}" if body else "NOT", error)
        ask()
    client.subscribe("echo.pid", lambda value, revision: worker.log.info("value by=%d", value["pid"]))
    client.on_new_server(lambda: worker.log.info("met a new server"))
    worker.supervisor.ready()
    ask()
    worker.loop.run()
"""
KILLS = 40


def until(claim: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    ends_at = time.monotonic() + deadline_s
    while not claim():
        assert time.monotonic() < ends_at, what
        time.sleep(0.002)


def test_a_request_survives_40_kills_of_its_server(
    supervisor: Supervising, room: Callable[[str, str], Path]
) -> None:
    code = room("echo", SLOW_ECHO)
    supervisor.start("asker", code=room("asker", ASKER))
    supervisor.start("echo", serves=True, code=code)
    until(lambda: "answered" in supervisor.log_text(), "no first answer")
    waits_ms = []

    for _ in range(KILLS):
        hellos = len(supervisor.said("echo", "hello"))
        supervisor.kill("echo")
        pid = supervisor.start("echo", serves=True, code=code).pid
        until(lambda seen=hellos: len(supervisor.said("echo", "hello")) > seen, "no hello")
        greeted_at = time.monotonic()
        until(
            lambda pid=pid: f"answered by={pid} " in supervisor.log_text(),
            f"no answer of {pid}: {supervisor.log_text()[-2000:]}",
        )
        waits_ms.append((time.monotonic() - greeted_at) * 1000)
        until(lambda pid=pid: f"value by={pid}" in supervisor.log_text(), f"no value of {pid}")

    text = supervisor.log_text()
    print(
        f"from a new server's hello to its first answer: median {median(waits_ms):.0f} ms, longest"
        f" {max(waits_ms):.0f} ms"
    )
    assert "NOT" not in text
    numbers = [int(number) for number in re.findall(r"answered by=\d+ number=(\d+)", text)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert text.count("met a new server") == KILLS + 1


def test_a_request_asked_before_any_server_runs_is_answered(
    supervisor: Supervising, room: Callable[[str, str], Path]
) -> None:
    supervisor.bind("echo")
    supervisor.start("asker", code=room("asker", ASKER))
    supervisor.wait_for("asker", "ready")

    pid = supervisor.start("echo", serves=True, code=room("echo", SLOW_ECHO)).pid

    until(lambda: f"answered by={pid} number=1 " in supervisor.log_text(), supervisor.log_text())


def test_without_a_server_the_deadline_is_the_answer(
    supervisor: Supervising, room: Callable[[str, str], Path]
) -> None:
    supervisor.bind("echo")
    supervisor.start("asker", code=room("asker", ASKER.replace("deadline_s=60", "deadline_s=0.3")))

    until(
        lambda: (
            supervisor.log_text().count("no answer within 0.3 s: echo, echo.words: ask again") >= 5
        ),
        supervisor.log_text(),
    )
    pid = supervisor.start("echo", serves=True, code=room("echo", SLOW_ECHO)).pid

    until(lambda: f"answered by={pid} " in supervisor.log_text(), supervisor.log_text())
