"""Claims about connections that environment_monitor hands over: both ends are real, over a real
socket; this process is fabric_client as long as the state file says so.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.unit.fabric.loop_worker import LoopWorker
from waagent.protocol import control
from waagent.workers.environment_monitor.handover import ASKERS_LIMIT, Handover
from waagent.workers.fabric_client.handed_connections import HandedConnections


class Both:
    """environment_monitor's end and fabric_client's end, in one loop."""

    def __init__(self, worker: LoopWorker) -> None:
        self.worker = worker
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(worker.paths.bus / control.HANDOVER_SOCKET))
        listener.listen(32)
        self.platform = socket.create_server(("127.0.0.1", 0))
        self.platform.setblocking(False)
        port = self.platform.getsockname()[1]
        places = {"wireserver": ("", port), "hostplugin": ("", 1)}
        self.serving = Handover(worker, listener.detach(), places)  # type: ignore[arg-type]  # a part of a worker
        self.serving.address = "127.0.0.1"
        self.client = HandedConnections(worker)  # type: ignore[arg-type]  # a part of a worker
        worker.name_processes(fabric_client=os.getpid())

    def connect(self, to: str) -> tuple[socket.socket | None, str]:
        answers: list[tuple[socket.socket | None, str]] = []
        self.client.connect(to, lambda connected, error: answers.append((connected, error)))
        self.worker.until(lambda: answers, "an answer")
        return answers[0]

    def raw(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(str(self.worker.paths.bus / control.HANDOVER_SOCKET))
        connection.setblocking(False)
        return connection

    def ends(self, connection: socket.socket) -> bool:
        """Whether ``connection`` was closed without a word and without a descriptor."""

        def looked() -> list[bool]:
            try:
                packet, descriptors, _, _ = socket.recv_fds(connection, 512, 4)
            except BlockingIOError:
                return []
            return [packet == b"" and not descriptors]

        return bool(self.worker.until(looked, "an end")[0])


@pytest.fixture
def both(worker: LoopWorker) -> Iterator[Both]:
    made = Both(worker)
    yield made
    made.platform.close()


def test_a_connection_to_the_platform_is_handed_over_and_works(both: Both) -> None:
    connected, error = both.connect("wireserver")

    assert connected is not None and error == ""
    theirs, _ = both.platform.accept()
    connected.send(b"hello")
    theirs.settimeout(10)
    assert theirs.recv(16) == b"hello"


@pytest.mark.parametrize("to", ["storage", "", "127.0.0.1:22", "WIRESERVER", "metadata"])
def test_no_other_place_can_be_asked_for(both: Both, to: str) -> None:
    connected, error = both.connect(to)

    assert connected is None and "no such place" in error


def test_a_refused_connection_is_told_with_its_reason(both: Both) -> None:
    connected, error = both.connect("hostplugin")

    assert connected is None and "Connection refused" in error


def test_before_the_endpoint_is_known_nothing_is_connected(both: Both) -> None:
    both.serving.address = ""

    connected, error = both.connect("wireserver")

    assert connected is None and "not found yet" in error


@pytest.mark.parametrize("name", ["extension_runner", "probe_responder", "transfer"])
def test_nobody_but_fabric_client_is_read(both: Both, name: str) -> None:
    both.worker.name_processes(**{name: os.getpid()})
    stranger = both.raw()
    stranger.send(control.pack("connect", to="wireserver"))

    try:
        assert both.ends(stranger)
    except ConnectionResetError:
        pass  # closed with our word unread
    assert both.serving.refused == 1
    with pytest.raises(BlockingIOError):
        both.platform.accept()


@pytest.mark.parametrize(
    "word",
    [b"x", b"\xc1" * 100, control.pack("connect"), control.pack("open", to="wireserver")]
    + [control.pack("connect", to=["wireserver"]), b"\x81" * 512],
)
def test_a_word_that_is_none_gets_no_connection(both: Both, word: bytes) -> None:
    asker = both.raw()
    asker.send(word)

    def answered() -> list[tuple[bytes, list[int]]]:
        try:
            packet, descriptors, _, _ = socket.recv_fds(asker, 512, 4)
        except BlockingIOError:
            return []
        return [(packet, list(descriptors))]

    ((packet, descriptors),) = both.worker.until(answered, "an answer or an end")
    assert descriptors == []
    assert packet == b"" or control.unpack(packet)["type"] == "refused"


def test_silent_connections_are_few_and_short(both: Both) -> None:
    silent = [both.raw() for _ in range(ASKERS_LIMIT + 4)]

    assert all(both.ends(one) for one in silent)
    connected, _ = both.connect("wireserver")
    assert connected is not None


def test_without_environment_monitor_the_answer_is_an_error(worker: LoopWorker) -> None:
    client = HandedConnections(worker)  # type: ignore[arg-type]  # a part of a worker
    errors: list[str] = []

    client.connect("wireserver", lambda connected, error: errors.append(error))
    worker.until(lambda: errors, "an answer")

    assert "cannot be asked" in errors[0]
