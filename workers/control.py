"""A worker's end of the control socket: hello, configure, and what it says of itself.

Nothing here ever waits for the supervisor but the answer to `hello`: a heartbeat that does not fit
is dropped, anything else is kept until it fits. A stopped supervisor's queue holds few packets; a
blocking send would stop every worker with it.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.protocol import control
from waagent.protocol.base.records import Record

# the supervisor judges much earlier; this only ends a worker that nobody judges
ANSWER_LIMIT_S = 60.0
_WAITING_LIMIT = 256
_RECEIVED_PER_TURN = 32
_FACT_TEXT_LIMIT = 400


class SupervisorGone(Exception):
    """The supervisor died, or has closed this connection: there is nothing left to do here."""


class Configured(Record):
    """A `configure` message."""

    configuration: dict[str, Any]
    numbers: tuple[int, ...]
    verbose: bool
    told_before: dict[str, Any]
    """The facts that this worker, or the process before it, has told last."""


class Control:
    """The connection. Invariant: what waits is sent in order, and never by waiting for the peer."""

    def __init__(self, path: Path) -> None:
        """Raises SupervisorGone when nobody listens."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._waiting: deque[bytes] = deque(maxlen=_WAITING_LIMIT)
        self.dropped_beats = 0
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise SupervisorGone(
                f"cannot reach the supervisor ({error}): {path}: none needed, it starts a new"
                " worker"
            ) from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor, to be watched."""
        return self._socket.fileno()

    @property
    def has_waiting(self) -> bool:
        """Something did not fit yet."""
        return bool(self._waiting)

    def greet(self, build: str) -> Configured:
        """Say hello and wait for the configuration. Raises SupervisorGone."""
        self.say("hello", build=build)
        answers: list[Configured] = []
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not answers:
            if not poll.poll(ANSWER_LIMIT_S * 1000):
                raise SupervisorGone(
                    f"no answer to hello within {ANSWER_LIMIT_S:g} s: control: none needed, a new"
                    " worker is started"
                )
            for message, descriptors in self.receive():
                _close_all(descriptors)
                if message["type"] == "configure":
                    answers.append(configured(message))
        return answers[-1]

    def say(self, kind: str, **fields: Any) -> None:
        """Send, now or as soon as it fits; see `has_waiting` and `flush`."""
        self._waiting.append(control.pack(kind, **fields))
        self.flush()

    def beat(self, doing: str, progress: int, facts: Mapping[str, Any]) -> None:
        """A heartbeat, now or never."""
        packet = control.pack("heartbeat", doing=doing, progress=progress, facts=bounded(facts))
        if len(packet) > control.HEARTBEAT_LIMIT_BYTES:
            packet = control.pack("heartbeat", doing=doing, progress=progress)
        self.flush()
        if self._waiting or not self._send(packet):
            self.dropped_beats += 1

    def flush(self) -> None:
        """Send what waits, as far as it fits. Raises SupervisorGone."""
        while self._waiting and self._send(self._waiting[0]):
            self._waiting.popleft()

    def flush_all(self) -> None:
        """Wait until everything is sent: for the result of a one-shot, before it ends. Raises
        SupervisorGone.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self._waiting:
            poll.poll()
            self.flush()

    def receive(self) -> list[tuple[dict[str, Any], list[int]]]:
        """What has come, with the descriptors that rode along. Raises SupervisorGone at the end of
        the connection.
        """
        messages = []
        for _ in range(_RECEIVED_PER_TURN):
            try:
                packet, descriptors, flags, _ = socket.recv_fds(
                    self._socket,
                    control.PACKET_LIMIT_BYTES,
                    1,
                    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                )
            except BlockingIOError:
                break
            except OSError as error:
                raise SupervisorGone(
                    f"control connection lost ({error}): control: none needed"
                ) from error
            if not packet:
                _close_all(descriptors)
                raise SupervisorGone(
                    "the supervisor closed the control connection: control: none needed"
                )
            try:
                messages.append((control.unpack(packet), descriptors))
            except control.ControlError:  # a newer supervisor may say more than we know
                _close_all(descriptors)
        return messages

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _send(self, packet: bytes) -> bool:
        try:
            return control.send(self._socket, packet)
        except OSError as error:
            raise SupervisorGone(
                f"control connection lost ({error}): control: none needed"
            ) from error


def configured(message: Mapping[str, Any]) -> Configured:
    """The content of a `configure` message."""
    numbers = tuple(int(number) for number in message.get("numbers") or ())
    return Configured(
        dict(message.get("configuration") or {}),
        numbers,
        bool(message.get("verbose")),
        dict(message.get("facts") or {}),
    )


def bounded(facts: Mapping[str, Any]) -> dict[str, Any]:
    """``facts`` with their texts cut, so that a heartbeat stays small."""
    return {
        key: value[:_FACT_TEXT_LIMIT] if isinstance(value, str) else value
        for key, value in facts.items()
    }


def adopt_log(descriptors: list[int]) -> None:
    """Make the log that rode along ours: descriptors 1 and 2."""
    for descriptor in descriptors:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    _close_all(descriptors)


def next_beat_at(now: float, beat_s: float) -> float:
    """The next multiple of the period on the clock: all workers beat together, and the VM wakes
    once.
    """
    at = (now // beat_s + 1) * beat_s
    return at if at > now else at + beat_s


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
