"""Answers the load balancer's probes on every port that the goal state names, so that traffic comes
to this VM.

It asks nobody; the supervisor tells it the ports (`configure`, numbers) and starts it only while
there are some and LBProbeResponder is not n. Privilege: an account of its own, no capability
(NET_BIND_SERVICE only for a port below 1024), no /proc. Killed, it is back in milliseconds; the
platform takes a VM out only after several missed probes.
"""

from __future__ import annotations

import resource
import socket

from waagent.distro.addresses import drain, open_address_watch, primary_address
from waagent.workers.probe_responder.responder import PATIENCE_S, Responder
from waagent.workers.runtime import Worker

_DESCRIPTORS_KEPT = 64  # log, control, bus, epoll, netlink and one listener for each port
_AGAIN_S = 5.0  # a port in use, or no address yet: looked at again
_LOOK_S = 15.0  # where the kernel does not tell of a new address


def main(worker: Worker) -> None:
    """Listen, follow ports and address, answer."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    service = Service(worker, Responder(descriptors - _DESCRIPTORS_KEPT, worker.log))
    worker.supervisor.on_configure(service.follow)
    worker.loop.on_stop(service.close)
    service.watch_address()
    service.follow()
    worker.supervisor.ready()
    worker.loop.run()


class Service:
    """The responder on a worker's loop. Invariant: one retry and one sweep are scheduled at
    most.
    """

    def __init__(self, worker: Worker, responder: Responder) -> None:
        self._worker = worker
        self._responder = responder
        self._watch: socket.socket | None = None
        self._retry_is_due = False
        self._sweep_is_due = False
        self._said = ""
        worker.loop.on_readable(responder.fileno(), self.serve)

    def watch_address(self) -> None:
        """Have `follow` called when the VM's address may have changed."""
        self._watch = open_address_watch()
        if self._watch is None:
            self._worker.loop.every(_LOOK_S, self.follow)
        else:
            self._worker.loop.on_readable(self._watch.fileno(), self._address_may_have_changed)

    def follow(self) -> None:
        """Listen on the ports and the address of this moment; what cannot be had now is tried
        again.
        """
        ports = [port for port in self._worker.numbers if 0 < port < 65536]
        address = primary_address()
        if address is None:
            self._responder.listen("", ())
            self._report("no IPv4 address yet", is_problem=True)
        else:
            problems = self._responder.listen(address, ports)
            text = f"{address}:" + ",".join(str(port) for port in self._responder.ports)
            for port, problem in problems.items():
                text += f", port {port}: {problem}"
            self._report(text, is_problem=bool(problems))

    def serve(self) -> None:
        """Let the responder do what it can; see to it that idle callers are let go in time."""
        self._responder.turn()
        if self._responder.callers and not self._sweep_is_due:
            self._sweep_is_due = True
            self._worker.loop.after(PATIENCE_S, self._sweep)

    def close(self) -> None:
        """Let go of ports and callers."""
        self._worker.loop.forget(self._responder.fileno())
        self._responder.close()

    def _sweep(self) -> None:
        pause_s = self._responder.sweep()
        self._sweep_is_due = pause_s is not None
        if pause_s is not None:
            self._worker.loop.after(max(pause_s, 0.05), self._sweep)

    def _address_may_have_changed(self) -> None:
        if self._watch is not None:
            drain(self._watch)
        self.follow()

    def _report(self, text: str, *, is_problem: bool) -> None:
        if text != self._said:
            self._said = text
            (self._worker.log.warning if is_problem else self._worker.log.info)(
                "answering probes on %s", text
            )
        self._worker.supervisor.doing(text)
        if is_problem and not self._retry_is_due:
            self._retry_is_due = True
            self._worker.loop.after(_AGAIN_S, self._retry)

    def _retry(self) -> None:
        self._retry_is_due = False
        self.follow()
