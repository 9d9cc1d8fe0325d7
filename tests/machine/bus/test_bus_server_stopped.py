"""A server that stands still: its clients see their deadlines, do not stand still themselves, and
go on when it does.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Callable

from tests.harness.supervising import Supervising

ASKER = """
def main(worker):
    client = worker.bus.client("echo")
    def ask():
        client.ask("echo.words", {}, deadline_s=0.3, done=answered)
    def answered(body, error):
        worker.log.info("answered" if body else "silence")
        worker.loop.after(0.02, ask)
    for number in range(300):
        client.tell("echo.event", {"number": number, "pad": "x" * 4000})
    worker.supervisor.ready()
    ask()
    worker.loop.run()
"""


def until(claim: Callable[[], bool], what: Callable[[], str], deadline_s: float = 60.0) -> None:
    ends_at = time.monotonic() + deadline_s
    while not claim():
        assert time.monotonic() < ends_at, what()
        time.sleep(0.01)


def sockets_of(pid: int) -> int:
    return sum(
        1
        for entry in Path(f"/proc/{pid}/fd").iterdir()
        if str(entry.readlink()).startswith("socket:")
    )


def test_a_stopped_server_stops_no_client(
    supervisor: Supervising, room: Callable[[str, str], Path], echo: Callable[[], int]
) -> None:
    echo()
    asker = supervisor.start("asker", code=room("asker", ASKER))
    until(lambda: "answered" in supervisor.log_text(), supervisor.log_text)
    server = supervisor.processes["echo"]

    before = sockets_of(asker.pid)
    server.send_signal(signal.SIGSTOP)
    until(lambda: supervisor.log_text().count("silence") >= 20, supervisor.log_text)
    during = sockets_of(asker.pid)
    seen = supervisor.log_text().count("answered")
    server.send_signal(signal.SIGCONT)
    until(lambda: supervisor.log_text().count("answered") >= seen + 10, supervisor.log_text)

    assert during <= before
    assert server.poll() is None and asker.poll() is None


def test_a_hung_server_is_killed_and_its_successor_answers(
    supervisor: Supervising, room: Callable[[str, str], Path], echo: Callable[[], int]
) -> None:
    echo()
    supervisor.start("asker", code=room("asker", ASKER))
    until(lambda: "answered" in supervisor.log_text(), supervisor.log_text)
    supervisor.processes["echo"].send_signal(signal.SIGSTOP)
    until(lambda: supervisor.log_text().count("silence") >= 20, supervisor.log_text)

    supervisor.kill("echo")
    seen = supervisor.log_text().count("answered")
    echo()

    until(lambda: supervisor.log_text().count("answered") >= seen + 10, supervisor.log_text)


def test_a_sender_that_is_not_allowed_is_refused_and_named(
    supervisor: Supervising, room: Callable[[str, str], Path], echo: Callable[[], int]
) -> None:
    code = """
        from waagent.protocol.bus.bus_errors import Refused
        def main(worker):
            worker.supervisor.ready()
            client = worker.bus.client("echo")
            for topic in ("echo.words", "echo.nothing"):
                try:
                    client.request(topic, {}, deadline_s=60, reason="asking")
                except Refused as error:
                    worker.log.info("refused: %s", error)
            worker.supervisor.done("refused")
    """
    echo()

    supervisor.start("curious", code=room("curious", code))
    supervisor.wait_for("curious", "done")

    text = supervisor.log_text()
    assert "refused: curious may not ask this: echo, echo.words: see its log" in text
    assert "refused: no such topic here: echo, echo.nothing: see its log" in text
    assert "refused req 'echo.words': curious: curious may not ask this" in text
