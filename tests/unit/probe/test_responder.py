"""Claims about the probe server: everybody is answered, nobody can make it wait."""

from __future__ import annotations

import logging
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from waagent.workers.probe_responder.responder import Responder, answer_at

LOOPBACK = "127.0.0.1"


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def responder(clock: Clock) -> Iterator[Responder]:
    made = Responder(600, logging.getLogger("test"), clock)
    yield made
    made.close()


def free_ports(count: int) -> list[int]:
    held = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@contextmanager
def running(responder: Responder) -> Iterator[None]:
    """The responder's turns, in a thread, as a worker's loop gives them."""
    over = threading.Event()

    def turns() -> None:
        while not over.is_set():
            select.select([responder.fileno()], [], [], 0.02)
            responder.turn()
            responder.sweep()

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def ask(port: int, request: bytes = b"GET / HTTP/1.0\r\n\r\n") -> bytes:
    with socket.create_connection((LOOPBACK, port), timeout=60) as caller:
        caller.sendall(request)
        answer = b""
        while True:
            part = caller.recv(4096)
            if not part:
                return answer
            answer += part


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.1\r\n\r\n", b"POST /x HTTP/1.0\r\n\r\nbody", b"\0", b"x" * 5000],
)
def test_any_request_gets_the_documented_answer(responder: Responder, request_bytes: bytes) -> None:
    ports = free_ports(2)
    responder.listen(LOOPBACK, ports)

    with running(responder):
        answers = [ask(port, request_bytes) for port in ports]

    for answer in answers:
        assert re.fullmatch(
            rb"HTTP/1\.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html\r\n"
            rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n\r\nOK",
            answer,
        ), answer


def test_the_date_is_rfc_1123() -> None:
    assert b"\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in answer_at(784111777)


def test_five_hundred_at_once_are_answered_beside_idle_ones(responder: Responder) -> None:
    (port,) = free_ports(1)
    responder.listen(LOOPBACK, [port])
    with running(responder):
        idle = [socket.create_connection((LOOPBACK, port), timeout=60) for _ in range(90)]
        callers = [socket.create_connection((LOOPBACK, port), timeout=60) for _ in range(500)]

        for caller in callers:
            caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answers = [caller.recv(4096) for caller in callers]

    assert all(answer.endswith(b"\r\n\r\nOK") for answer in answers)
    for one in idle + callers:
        one.close()


def test_idle_and_slow_callers_are_let_go_after_five_seconds(
    responder: Responder, clock: Clock
) -> None:
    (port,) = free_ports(1)
    responder.listen(LOOPBACK, [port])
    with running(responder):
        silent = socket.create_connection((LOOPBACK, port), timeout=60)
        lazy = socket.create_connection((LOOPBACK, port), timeout=60)
        lazy.sendall(b"x")  # answered, but it never closes
        assert lazy.recv(4096).endswith(b"OK")

        clock.ahead_s = 5.5

        assert silent.recv(10) == b""
        deadline = time.monotonic() + 60
        while responder.callers and time.monotonic() < deadline:
            time.sleep(0.01)
        assert responder.callers == 0
    silent.close()
    lazy.close()


def test_when_there_is_no_room_the_one_who_waited_longest_goes(clock: Clock) -> None:
    small = Responder(3, logging.getLogger("test"), clock)
    (port,) = free_ports(1)
    small.listen(LOOPBACK, [port])
    with running(small):
        idle = [socket.create_connection((LOOPBACK, port), timeout=60) for _ in range(10)]

        answer = ask(port)

        assert answer.endswith(b"OK")
        assert idle[0].recv(1) == b""
    for one in idle:
        one.close()
    small.close()


def test_ports_are_followed_and_unchanged_ones_keep_their_callers(responder: Responder) -> None:
    first, second, third = free_ports(3)
    responder.listen(LOOPBACK, [first, second])
    with running(responder):
        waiting = socket.create_connection((LOOPBACK, second), timeout=60)

        problems = responder.listen(LOOPBACK, [second, third])

        waiting.sendall(b"x")
        assert problems == {} and responder.ports == tuple(sorted((second, third)))
        assert waiting.recv(4096).endswith(b"OK") and ask(third).endswith(b"OK")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, first), timeout=60)
    waiting.close()


def test_a_new_address_moves_every_port(responder: Responder) -> None:
    (port,) = free_ports(1)
    responder.listen(LOOPBACK, [port])

    responder.listen("127.0.0.2", [port])

    with running(responder):
        with socket.create_connection(("127.0.0.2", port), timeout=60) as caller:
            caller.sendall(b"x")
            assert caller.recv(4096).endswith(b"OK")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port), timeout=60)


def test_a_port_in_use_is_named_and_the_others_are_served(responder: Responder) -> None:
    taken = socket.create_server((LOOPBACK, 0))
    (free,) = free_ports(1)

    problems = responder.listen(LOOPBACK, [taken.getsockname()[1], free])

    assert (
        list(problems) == [taken.getsockname()[1]] and "in use" in problems[taken.getsockname()[1]]
    )
    assert responder.ports == (free,)
    taken.close()


def test_a_bare_connect_harms_nothing(responder: Responder) -> None:
    (port,) = free_ports(1)
    responder.listen(LOOPBACK, [port])
    with running(responder):
        for _ in range(50):
            socket.create_connection((LOOPBACK, port), timeout=60).close()

        assert ask(port).endswith(b"OK")
