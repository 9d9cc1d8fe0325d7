"""Claims about the transfer process: real processes, real sockets, a platform that hangs or answers
as the test says.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.unit.fabric.loop_worker import LoopWorker
from waagent.workers.fabric_client.handed_connections import HandedConnections
from waagent.workers.fabric_client.transfer_process import Transfer

DOCUMENT = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n<Certs/>   "


class Wire:
    """A WireServer that takes connections and answers when told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address, self.port = self._listener.getsockname()
        self.asked: dict[str, list[socket.socket]] = {}

    def look(self) -> None:
        """Accept and read what has come; requests are kept by their target."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        connection.settimeout(10)
        target = connection.recv(65536).split(b" ")[1].decode()
        self.asked.setdefault(target, []).append(connection)

    def count(self, target: str) -> int:
        self.look()
        return len(self.asked.get(target, ()))

    def answer(self, target: str, data: bytes = DOCUMENT) -> None:
        for connection in self.asked[target]:
            try:
                connection.sendall(data)
            except OSError:
                pass  # of a child that was killed
            connection.close()

    def close(self) -> None:
        for connections in self.asked.values():
            for connection in connections:
                connection.close()
        self._listener.close()


class Asked:
    """One piece of work, and what became of it."""

    def __init__(
        self, transfer: Transfer, wire: Wire, target: str, deadline_s: float = 60.0
    ) -> None:
        self.frames: list[dict[str, Any]] = []
        self.ends: list[str] = []
        job = {
            "operation": "certificates",
            "target": target,
            "certificate": "QUJD",
            "cipher": "AES128_CBC",
            "endpoint": wire.address,
            "port": wire.port,
        }
        transfer.run(
            job, deadline_s=deadline_s, on_frame=self.frames.append, on_end=self.ends.append
        )


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


@pytest.fixture
def transfer(worker: LoopWorker) -> Iterator[Transfer]:
    made = Transfer(worker, worker.paths.root, HandedConnections(worker), idle_s=0.5)  # type: ignore[arg-type]  # a part of a worker
    yield made
    made.renew()
    worker.until(lambda: not processes(), "the end of all processes")


def processes() -> list[psutil.Process]:
    """Transfer processes that run, not their children."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "transfer" in " ".join(child.cmdline())
    ]


def test_many_pieces_of_work_share_one_process(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    asked = [Asked(transfer, wire, f"/{number}") for number in range(6)]
    worker.until(lambda: all(wire.count(f"/{n}") for n in range(6)), "six requests at once")

    (process,) = processes()
    assert len(process.children()) == 6
    for number in range(6):
        wire.answer(f"/{number}")
    worker.until(lambda: all(one.ends for one in asked), "six ends")
    later = Asked(transfer, wire, "/later")
    worker.until(lambda: wire.count("/later"), "a later request")

    assert processes() == [process]
    wire.answer("/later")
    worker.until(lambda: later.ends, "its end")
    assert [one.ends for one in (*asked, later)] == [[""]] * 7


def test_it_ends_after_the_last_piece_of_work_and_comes_back(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    first = Asked(transfer, wire, "/a")
    worker.until(lambda: wire.count("/a"), "a request")
    wire.answer("/a")
    worker.until(lambda: first.ends, "its end")

    worker.until(lambda: not processes(), "the end of the process")

    second = Asked(transfer, wire, "/b")
    worker.until(lambda: wire.count("/b"), "a request to a new one")
    wire.answer("/b")
    worker.until(lambda: second.ends == [""], "its end")


def test_work_that_kills_its_process_is_asked_once_more_and_costs_nobody_else(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    bomb = Asked(transfer, wire, "/bomb")
    worker.until(lambda: wire.count("/bomb"), "the first try")
    (first,) = processes()
    (child,) = first.children()
    healthy = Asked(transfer, wire, "/healthy")
    worker.until(lambda: wire.count("/healthy"), "a request beside it")

    child.kill()
    worker.until(lambda: wire.count("/bomb") == 2, "the second try")
    (fresh,) = [process for process in processes() if process != first]
    fresh.children()[0].kill()
    worker.until(lambda: bomb.ends, "its end")
    wire.answer("/healthy")
    worker.until(lambda: healthy.ends, "the other's end")

    assert wire.count("/bomb") == 2
    assert "died of it, twice" in bomb.ends[0]
    assert healthy.ends == [""] and wire.count("/healthy") == 1


def test_the_process_itself_may_die_and_its_work_is_done(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    transfer.prepare()
    worker.until(processes, "a process")
    processes()[0].kill()
    worker.until(lambda: not processes(), "its end")

    asked = Asked(transfer, wire, "/a")
    worker.until(lambda: wire.count("/a"), "the request")
    wire.answer("/a")

    worker.until(lambda: asked.ends == [""], "its end")


def test_each_piece_of_work_has_its_own_deadline(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    hangs = Asked(transfer, wire, "/hangs", deadline_s=2.0)
    patient = Asked(transfer, wire, "/patient")
    worker.until(lambda: hangs.ends, "the deadline")

    assert "too long" in hangs.ends[0]
    worker.until(lambda: wire.count("/patient"), "the other request")
    wire.answer("/patient")
    worker.until(lambda: patient.ends == [""], "the other's end")


def test_a_child_that_nobody_waits_for_ends(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    asked = Asked(transfer, wire, "/a", deadline_s=1.0)
    worker.until(lambda: wire.count("/a"), "a request")
    child = processes()[0].children()[0]

    worker.until(lambda: asked.ends, "the deadline")

    worker.until(lambda: not child.is_running(), "the child's end")


def test_a_process_that_takes_nothing_is_an_error_not_a_wait(
    worker: LoopWorker, transfer: Transfer, wire: Wire
) -> None:
    transfer.prepare()
    worker.until(processes, "a process")
    os.kill(processes()[0].pid, signal.SIGSTOP)

    asked = Asked(transfer, wire, "/a", deadline_s=1.0)
    worker.until(lambda: asked.ends, "the deadline")

    assert "too long" in asked.ends[0]
    os.kill(processes()[0].pid, signal.SIGKILL)
