"""The search for the WireServer: route, lease, own DISCOVER, and from 1 s on the fixed address
beside it.

Source: spec/wire.md §1 (Rules). Routes are never touched. While nothing is found the ways are tried
again with back-off, and at once when the VM gets an address; once the WireServer is known, no timer
and no socket is left.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from waagent.distro.addresses import drain, open_address_watch
from waagent.distro.paths import Paths
from waagent.protocol.base.backoff import next_pause_s
from waagent.protocol.base.log import Log
from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import Endpoint
from waagent.protocol.wire.constants import WIRESERVER
from waagent.workers.environment_monitor import leases, network
from waagent.workers.environment_monitor.dhcp import DhcpReply
from waagent.workers.environment_monitor.dhcp_socket import DhcpSocket, FixedAddressProbe

# a DHCP server in the same host answers within milliseconds; who has none must not wait long
FIXED_AFTER_S = 1.0
FIXED_LIMIT_S = 5.0
# how long option 245 may still replace the fixed address (the predecessor's receive time-out)
LATE_ANSWER_S = 10.0
SETTLE_S = 0.2  # an interface that comes up tells so several times
BACK_OFF_S = (2.0, 4.0, 8.0, 15.0, 30.0)


class Loop(Protocol):
    """What the search needs of a worker's loop."""

    def after(self, seconds: float, call: Callable[[], None]) -> Any: ...
    def on_readable(self, descriptor: int, call: Callable[[], None]) -> None: ...
    def on_writable(self, descriptor: int, call: Callable[[], None]) -> None: ...
    def forget(self, descriptor: int) -> None: ...


class Ways(Record):
    """How to search."""

    is_static: bool = False
    """Protocol.EndpointDiscovery is not `dhcp`."""
    interface: str = ""
    """Network.Interface, or empty."""
    fixed_port: int = 80


class Discovery:
    """One search. Invariant: ``found`` was called with the best answer so far; option 245 replaces
    only the fixed address.
    """

    def __init__(
        self,
        loop: Loop,
        paths: Paths,
        ways: Ways,
        log: Log,
        found: Callable[[Endpoint], None],
        doing: Callable[[str], None],
    ) -> None:
        self._loop, self._paths, self._ways, self._log = loop, paths, ways, log
        self._found, self._doing = found, doing
        self._sockets: list[DhcpSocket] = []
        self._fixed: FixedAddressProbe | None = None
        self._watch: socket.socket | None = None
        self._round = 0
        self._timers: list[Any] = []
        self._said: set[str] = set()
        self.answer: Endpoint | None = None

    def begin(self) -> None:
        """One round of all ways; the next one follows by itself until the address is known."""
        self._close_sockets()
        known = self._known_without_asking()
        if known is not None:
            self._settle(known)
            return
        self._watch_addresses()
        self._ask_by_dhcp()
        self._timers = [
            self._loop.after(FIXED_AFTER_S, self._ask_fixed_address),
            self._loop.after(
                FIXED_AFTER_S + max(FIXED_LIMIT_S, self._pause_s()), self._end_of_round
            ),
        ]
        self._doing(
            "searching the WireServer, DHCP on "
            + (" ".join(one.interface.name for one in self._sockets) or "no interface")
        )
        self._round += 1

    def _pause_s(self) -> float:
        return next_pause_s(self._round + 1, BACK_OFF_S)

    def _known_without_asking(self) -> Endpoint | None:
        if self._ways.is_static:
            return Endpoint(WIRESERVER, "configured")
        if network.has_wireserver_route(network.read_routes(self._paths)):
            return Endpoint(WIRESERVER, "route")
        lease = leases.endpoint_below(self._paths.root, time.time())
        if lease is None:
            return None
        self._log.info("option 245 stands in a lease file=%s", lease[1])
        return Endpoint(str(lease[0]), "lease")

    def _watch_addresses(self) -> None:
        if self._watch is None:
            self._watch = open_address_watch()
            if self._watch is not None:
                self._loop.on_readable(self._watch.fileno(), self._address_changed)

    def _address_changed(self) -> None:
        if self._watch is not None:
            drain(self._watch)
        if self.answer is None:
            self._close_sockets()
            self._timers = [self._loop.after(SETTLE_S, self.begin)]

    def _ask_by_dhcp(self) -> None:
        for interface in network.interfaces_to_ask(
            self._paths, network.read_routes(self._paths), self._ways.interface
        ):
            try:
                asked = DhcpSocket(interface)
            except OSError as error:
                self._say_once(
                    f"no raw socket on {interface.name}: {error.strerror}: the fixed address is"
                    " tried"
                )
                continue
            try:
                asked.discover()
            except OSError as error:
                asked.close()
                self._say_once(
                    f"DISCOVER on {interface.name} not sent: {error.strerror}: tried again"
                )
                continue
            self._sockets.append(asked)
            self._loop.on_readable(asked.fileno(), partial(self._read_replies, asked))

    def _read_replies(self, asked: DhcpSocket) -> None:
        if asked not in self._sockets:
            return
        try:
            replies, refused = asked.replies()
        except OSError as error:  # the interface went away
            self._say_once(f"{asked.interface.name}: {error.strerror}: tried again")
            self._close_sockets()
            self._timers = (
                [self._loop.after(BACK_OFF_S[0], self.begin)] if self.answer is None else []
            )
            return
        for text in refused:
            self._say_once(f"frame on {asked.interface.name} is no answer to us: {text}")
        for reply in replies:
            if self._take(reply, asked.interface.name):
                return

    def _take(self, reply: DhcpReply, interface: str) -> bool:
        if reply.endpoint is None:
            self._say_once(f"the DHCP server on {interface} does not say option 245 (WireServer)")
            return False
        self._settle(Endpoint(str(reply.endpoint), "dhcp"))
        return True

    def _ask_fixed_address(self) -> None:
        try:
            self._fixed = FixedAddressProbe(WIRESERVER, self._ways.fixed_port)
        except OSError as error:
            self._say_once(f"{WIRESERVER}: {error.strerror}: tried again")
            return
        self._loop.on_writable(self._fixed.fileno(), self._fixed_address_decided)

    def _fixed_address_decided(self) -> None:
        if self._fixed is None:
            return
        problem = self._fixed.outcome()
        self._close_fixed()
        if problem:
            self._say_once(f"{WIRESERVER} does not take a connection ({problem}): tried again")
            return
        self._announce(Endpoint(WIRESERVER, "fixed"))
        self._cancel_timers()
        self._timers = [self._loop.after(LATE_ANSWER_S, self._close)]

    def _end_of_round(self) -> None:
        if self.answer is None:
            self.begin()

    def _settle(self, endpoint: Endpoint) -> None:
        self._close()
        self._announce(endpoint)

    def _announce(self, endpoint: Endpoint) -> None:
        if endpoint == self.answer:
            return
        self.answer = endpoint
        self._log.info("WireServer found address=%s source=%s", endpoint.address, endpoint.source)
        self._doing(f"{endpoint.address} by {endpoint.source}")
        self._found(endpoint)

    def _say_once(self, text: str) -> None:
        if text not in self._said and len(self._said) < 64:
            self._said.add(text)
            self._log.warning("%s", text)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _close_fixed(self) -> None:
        if self._fixed is not None:
            self._loop.forget(self._fixed.fileno())
            self._fixed.close()
            self._fixed = None

    def _close(self) -> None:
        """Let go of everything that the search holds."""
        self._close_sockets()
        if self._watch is not None:
            self._loop.forget(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _close_sockets(self) -> None:
        self._cancel_timers()
        self._close_fixed()
        for asked in self._sockets:
            self._loop.forget(asked.fileno())
            asked.close()
        self._sockets = []
