"""Connections to the platform that environment_monitor made: asked for one at a time, used for one
exchange each (protocol/wire/handover.py says why they are needed).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent.protocol import control
from waagent.protocol.wire import handover

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

Done = Callable[["socket.socket | None", str], None]


class HandedConnections:
    """Invariant: ``done`` of each `connect` is called exactly once, within handover.ANSWER_S."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._path = worker.paths.bus / control.HANDOVER_SOCKET
        self.are_used = False
        """Whether this uid was refused where root was not: connections are asked for from then on.
        """

    def connect(self, to: str, done: Done) -> None:
        """A connected socket, which belongs to ``done`` from then on; None and the reason."""
        asked = socket.socket(
            socket.AF_UNIX,
            socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        )

        def end(connected: socket.socket | None, error: str) -> None:
            timer.cancel()
            self._worker.loop.forget(asked.fileno())
            asked.close()
            done(connected, error)

        def answered() -> None:
            try:
                packet, descriptors, _, _ = socket.recv_fds(
                    asked, handover.PACKET_LIMIT_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as error:
                end(None, f"environment_monitor: {error.strerror}")
                return
            end(*_taken(packet, descriptors))

        timer = self._worker.loop.after(
            handover.ANSWER_S, lambda: end(None, "environment_monitor does not answer")
        )
        try:
            asked.connect(str(self._path))
            asked.send(control.pack("connect", to=to))
        except OSError as error:
            reason = f"environment_monitor cannot be asked: {os.strerror(error.errno or 0)}"
            timer.cancel()
            timer = self._worker.loop.after(0, lambda: end(None, reason))
            return
        self._worker.loop.on_readable(asked.fileno(), answered)


def _taken(packet: bytes, descriptors: list[int]) -> tuple[socket.socket | None, str]:
    if descriptors:
        return socket.socket(fileno=descriptors[0]), ""
    try:
        reason = str(control.unpack(packet).get("reason", "")) if packet else ""
    except control.ControlError:
        reason = ""
    return None, f"environment_monitor: {reason or 'it hands over no connection'}"
