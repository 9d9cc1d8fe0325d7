"""The way to the platform: which address, which ports, and whether it answers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from waagent import __version__
from waagent.protocol.base.records import Record
from waagent.protocol.bus import topics
from waagent.protocol.wire import constants, http1
from waagent.workers.fabric_client.handed_connections import HandedConnections
from waagent.workers.fabric_client.http_exchange import Exchange, Outcome

if TYPE_CHECKING:
    from waagent.protocol.bus.client import Client
    from waagent.workers.runtime import Worker

USER_AGENT = f"{constants.AGENT_NAME}/{__version__}"
REQUEST_DEADLINE_S = 10.0  # of the whole exchange: a server that drips bytes does not prolong it
# attempts to connect in vain before environment_monitor is asked whether it can
QUESTION_AFTER = 2
THROUGH_ENVIRONMENT = "platform reached through environment_monitor (firewall)"


class Ports(Record):
    """Where WireServer, HostGAPlugin and metadata listen; others only in tests."""

    wire: int = constants.WIRE_PORT
    hostplugin: int = constants.HOSTPLUGIN_PORT
    metadata: int = constants.METADATA_PORT
    metadata_address: str = constants.METADATA_ADDRESS


class Link:
    """Sends requests to the endpoint. Invariant: without an address nothing is sent; connections
    are handed over only after this uid was refused and environment_monitor was not.
    """

    def __init__(
        self, worker: Worker, ports: Ports, environment: Client, handed: HandedConnections
    ) -> None:
        self._worker, self._environment, self._handed = worker, environment, handed
        self.ports = ports
        self._reopened: Callable[[], None] = lambda: None
        self.address = ""
        self._vain = 0
        self._has_connected = False
        self._is_asking = False

    def use(self, address: str) -> None:
        """From now on the platform is at ``address``."""
        if address != self.address:
            self._worker.log.info("platform endpoint=%s", address)
            self.address, self._vain, self._has_connected = address, 0, False
            self._handed.are_used = False
            self._worker.supervisor.tell(endpoint=address, way=None)

    def on_reopened(self, call: Callable[[], None]) -> None:
        """``call`` when there is a way to the platform after all."""
        self._reopened = call

    def wire(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        where: str,
        done: Callable[[Outcome], None],
        *,
        body: bytes | None = None,
        limit_bytes: int = constants.ANSWER_LIMIT_BYTES,
    ) -> None:
        """A request to the WireServer."""
        self._send(
            "wireserver",
            method,
            target,
            headers,
            where,
            done,
            body,
            limit_bytes,
            REQUEST_DEADLINE_S,
        )

    def hostplugin(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        where: str,
        done: Callable[[Outcome], None],
        *,
        body: bytes | None = None,
        limit_bytes: int = constants.ANSWER_LIMIT_BYTES,
        deadline_s: float = REQUEST_DEADLINE_S,
    ) -> None:
        """A request to the HostGAPlugin."""
        self._send(
            "hostplugin",
            method,
            target,
            headers,
            where,
            done,
            body,
            limit_bytes,
            deadline_s,
        )

    def metadata(
        self,
        target: str,
        headers: Mapping[str, str],
        done: Callable[[Outcome], None],
    ) -> None:
        """A question to the instance metadata service."""
        self._send(
            "metadata",
            "GET",
            target,
            headers,
            "instance metadata",
            done,
            None,
            constants.GOAL_STATE_LIMIT_BYTES,
            REQUEST_DEADLINE_S,
        )

    def _send(
        self,
        to: str,
        method: str,
        target: str,
        headers: Mapping[str, str],
        where: str,
        done: Callable[[Outcome], None],
        body: bytes | None,
        limit_bytes: int,
        deadline_s: float,
    ) -> None:
        address = {
            "wireserver": (self.address, self.ports.wire),
            "hostplugin": (self.address, self.ports.hostplugin),
            "metadata": (self.ports.metadata_address, self.ports.metadata),
        }[to]
        request = http1.build_request(
            method, target, http1.host_header(*address), headers, body, agent=USER_AGENT
        )
        place = f"http://{address[0]}:{address[1]} {where}"

        def finished(outcome: Outcome) -> None:
            if to == "wireserver":
                self._judge(outcome)
            done(outcome)

        def exchange(connected: socket.socket | None = None) -> None:
            Exchange(
                self._worker,
                address,
                request,
                place,
                limit_bytes=limit_bytes,
                deadline_s=deadline_s,
                done=finished,
                connected=connected,
            )

        def handed(connected: socket.socket | None, error: str) -> None:
            if connected is None:
                finished(Outcome(None, f"{error}: {place}", False))
            else:
                exchange(connected)

        if self._handed.are_used:
            self._handed.connect(to, handed)
        else:
            exchange()

    def _judge(self, outcome: Outcome) -> None:
        """Count what did not connect; a local firewall that admits only root looks like that (spec:
        wire §7.1).
        """
        if outcome.is_connected:
            self._vain = 0
            self._has_connected = self._has_connected or not self._handed.are_used
        else:
            self._vain += 1
        if outcome.answer is not None:
            self._worker.supervisor.tell(
                endpoint=self.address, answered_at=round(time.monotonic(), 1)
            )
        if self._vain >= QUESTION_AFTER and not self._has_connected and not self._is_asking:
            if self._handed.are_used:
                # the firewall may have gone, or been closed for root too: by ourselves first again
                self._handed.are_used, self._vain = False, 0
                self._worker.supervisor.tell(way=None)
                return
            self._is_asking = True
            self._environment.ask(topics.REACHABLE, {}, deadline_s=15.0, done=self._answered)

    def _answered(self, body: Mapping[str, object] | None, error: str) -> None:
        """Whether environment_monitor could connect."""
        self._is_asking = False
        self._vain = 0
        if body is not None and body.get("reachable") is True and not self._has_connected:
            self._worker.log.warning(
                "uid %d cannot connect to %s:%d, root can: a local firewall: %s",
                os.geteuid(),
                self.address,
                self.ports.wire,
                THROUGH_ENVIRONMENT,
            )
            self._handed.are_used = True
            self._worker.supervisor.doing(THROUGH_ENVIRONMENT)
            self._worker.supervisor.tell(way="environment_monitor")
            self._reopened()
