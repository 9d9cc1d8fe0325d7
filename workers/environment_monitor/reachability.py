"""Whether uid 0 can connect to the WireServer: what fabric_client asks when it cannot, because a
firewall may admit only root.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from waagent.protocol.wire.constants import WIRE_PORT

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.runtime import Worker

ATTEMPT_S = 5.0


class Reaching:
    """Answers one attempt to connect a request. Invariant: nothing is sent, and each socket is
    closed within ATTEMPT_S.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.address = ""
        """Of the WireServer; empty until it is found."""

    def asked(self, request: Request) -> None:
        """REACHABLE: answered when the connection came about or did not."""
        if not self.address:
            request.answer({"reachable": False})
            return
        attempt = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        status = attempt.connect_ex((self.address, WIRE_PORT))
        descriptor = attempt.fileno()

        def answer(reachable: bool) -> None:
            timer.cancel()
            self._worker.loop.forget(descriptor)
            attempt.close()
            request.answer({"reachable": reachable})

        timer = self._worker.loop.after(ATTEMPT_S, lambda: answer(False))
        if status in (0, errno.EINPROGRESS):
            self._worker.loop.on_writable(
                descriptor,
                lambda: answer(attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0),
            )
        else:
            answer(False)
