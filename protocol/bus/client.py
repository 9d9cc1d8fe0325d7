"""The asking end of the bus: requests with a deadline, subscriptions, events, to one server.

libzmq sends an empty frame whenever it has connected (PROBE_ROUTER); the server's answer carries
its instance id. Only then is anything sent: requests in flight once more (they are idempotent, a
server that died took them along), subscriptions with the revision that is known. After two
deadlines without a word from the server the socket is closed and a new one opened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import zmq

from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus import envelope, sockets
from waagent.protocol.bus.bus_errors import BusError, EnvelopeError, NoAnswer, Refused
from waagent.protocol.bus.bus_loop import Loop, Timer

# subscribers ask with their revision: otherwise a stalled one kept an old value for ever
ASK_AGAIN_S = 60.0
SUBSCRIBE_DEADLINE_S = 10.0
SILENT_DEADLINES = 2
IN_FLIGHT_LIMIT = 256
# between two new sockets, doubled each time: each leaves a ruin in the backlog of a server that is
# not there
PATIENCE_S = 10.0
PATIENCE_LIMIT_S = 3600.0

Outcome = Callable[["Mapping[str, Any] | BusError"], None]


class _Ask:
    """A request in flight. Invariant: it is settled exactly once."""

    def __init__(
        self,
        kind: str,
        number: int,
        topic: str,
        body: Mapping[str, Any],
        expires_at: float,
        settled: Outcome,
    ) -> None:
        self.kind, self.number, self.topic = kind, number, topic
        self.body = body
        self.expires_at = expires_at
        self.settled = settled
        self.timer: Timer | None = None
        self.is_sent = False


class _Subscription:
    """What is known of one topic; ``instance`` is the server's that told it."""

    def __init__(self, changed: Callable[[Mapping[str, Any], int], None]) -> None:
        self.changed = changed
        self.instance = ""
        self.revision = 0


class Client:
    """One server as this worker sees it. Invariant: every request is settled once, at its deadline
    at the latest.
    """

    def __init__(
        self, loop: Loop, context: zmq.Context[zmq.Socket[bytes]], path: Path, faults: Faults
    ) -> None:
        self._loop = loop
        self._context = context
        self._path = path
        self._faults = faults
        self._server = path.name
        self._instance = ""
        self._is_met = False
        self._last_number = 0
        self._silent = 0
        self._patience_s = PATIENCE_S
        self._may_open_again_at = 0.0
        self._asks: dict[int, _Ask] = {}
        self._subscriptions: dict[str, _Subscription] = {}
        self._events: deque[bytes] = deque(maxlen=sockets.QUEUE_LIMIT)
        self._new_server: list[Callable[[], None]] = []
        self._again: Timer | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._open()

    def ask(
        self,
        topic: str,
        body: Mapping[str, Any],
        *,
        deadline_s: float,
        done: Callable[[Mapping[str, Any] | None, str], None],
    ) -> None:
        """Ask; ``done(body, "")`` or ``done(None, error text)`` is called once, from the loop.
        Raises EnvelopeError.
        """

        def settled(outcome: Mapping[str, Any] | BusError) -> None:
            if isinstance(outcome, Refused):
                done(None, outcome.what)
            elif isinstance(outcome, BusError):
                done(None, str(outcome))
            else:
                done(outcome, "")

        self._ask(envelope.REQUEST, topic, body, deadline_s, settled)

    def request(
        self, topic: str, body: Mapping[str, Any], *, deadline_s: float, reason: str
    ) -> Mapping[str, Any]:
        """Ask and wait, the loop goes on meanwhile: for one-shots. Raises NoAnswer, Refused,
        EnvelopeError.
        """
        outcomes: list[Mapping[str, Any] | BusError] = []
        self._ask(envelope.REQUEST, topic, body, deadline_s, outcomes.append)
        self._loop.wait(lambda: bool(outcomes), deadline_s + 1.0, reason)
        outcome = outcomes[0] if outcomes else self._no_answer(topic, deadline_s)
        if isinstance(outcome, BusError):
            raise outcome
        return outcome

    def subscribe(self, topic: str, changed: Callable[[Mapping[str, Any], int], None]) -> None:
        """``changed(value, revision)`` with the last value and with each newer one; of several at
        once only the newest.
        """
        self._subscriptions[topic] = _Subscription(changed)
        if self._is_met:
            self._ask_for(topic)
        if self._again is None:
            self._again = self._loop.after(_until_next(self._loop.now()), self._ask_for_all)

    def tell(self, topic: str, body: Mapping[str, Any]) -> None:
        """An event, without an answer; while no server is met the last 64 wait. Raises
        EnvelopeError.
        """
        frame = envelope.pack(envelope.EVENT, 0, topic, 0, body)
        if not self._is_met or not self._send(frame):
            self._events.append(frame)

    def on_new_server(self, call: Callable[[], None]) -> None:
        """``call`` when another instance of the server is met (also the first): it knows nothing,
        say everything again.
        """
        self._new_server.append(call)

    def close(self) -> None:
        """Leave the server. What is in flight is never answered, nor settled."""
        for ask in self._asks.values():
            if ask.timer is not None:
                ask.timer.cancel()
        self._asks.clear()
        self._subscriptions.clear()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._close_socket()

    # the socket

    def _open(self) -> None:
        self._socket = sockets.open_dealer(self._context, self._path)
        self._is_met = False
        self._silent = 0
        self._loop.on_readable(self._socket, self._receive_all)

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket)
            self._socket.close(0)
            self._socket = None

    def _send(self, frame: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    # receiving

    def _receive_all(self) -> None:
        newest: dict[str, envelope.Envelope] = {}
        told: set[str] = set()
        for _ in range(sockets.FRAMES_PER_TURN):
            message = self._receive()
            if message is None:
                break
            if message.kind == envelope.EVENT and message.topic == sockets.INSTANCE:
                self._meet(str(message.body.get("instance")))
            elif message.kind == envelope.EVENT:
                if message.topic in newest:
                    told.add(message.topic)
                newest[message.topic] = message
                self._settle(message.id, message.body)
            elif message.kind == envelope.ERROR:
                self._settle(
                    message.id,
                    Refused(
                        str(message.body.get("text"))[:4096],
                        f"{self._server}, {message.topic}",
                        "see its log",
                    ),
                )
            elif message.kind == envelope.ANSWER:
                self._settle(message.id, message.body)
        for topic, message in newest.items():
            self._change(topic, message.body)
        for topic in told & set(self._subscriptions):
            self._ask_for(topic)  # a queue of changes was met: ask whether its end was cut off
        if self._is_met:
            self._send_all()

    def _receive(self) -> envelope.Envelope | None:
        """The next message that makes sense; None when there is none left."""
        while self._socket is not None:
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            more = frame.more
            is_whole = not more
            while more:
                more = self._socket.recv(zmq.NOBLOCK, copy=False).more
            try:
                if not is_whole:
                    raise EnvelopeError("more than one frame", self._server, "none needed, dropped")
                message = envelope.unpack(frame.buffer)
            except EnvelopeError as error:
                self._faults.seen(
                    f"bus bad {self._server}",
                    f"dropped what {self._server} sent: bus: {error.what}",
                )
                continue
            self._silent = 0
            return message
        return None

    def _meet(self, instance: str) -> None:
        is_new = instance != self._instance
        self._instance = instance
        self._is_met = True
        self._patience_s, self._may_open_again_at = PATIENCE_S, 0.0
        for ask in self._asks.values():
            ask.is_sent = False
        asked = {ask.topic for ask in self._asks.values() if ask.kind == envelope.SUBSCRIBE}
        for topic in self._subscriptions:
            if topic not in asked:
                self._ask_for(topic)
        if is_new:
            for call in list(self._new_server):
                call()

    def _change(self, topic: str, body: dict[str, Any]) -> None:
        subscription = self._subscriptions.get(topic)
        instance, revision, value = body.get("instance"), body.get("revision"), body.get("value")
        if (
            subscription is None
            or not isinstance(revision, int)
            or not isinstance(instance, str)
            or not isinstance(value, dict)
        ):
            return
        if subscription.instance == instance and revision <= subscription.revision:
            return
        subscription.instance, subscription.revision = instance, revision
        subscription.changed(value, revision)

    # asking

    def _ask(
        self, kind: str, topic: str, body: Mapping[str, Any], deadline_s: float, settled: Outcome
    ) -> None:
        self._last_number += 1
        number = self._last_number
        ask = _Ask(kind, number, topic, body, self._loop.now() + deadline_s, settled)
        envelope.pack(kind, number, topic, 0, body)
        if len(self._asks) >= IN_FLIGHT_LIMIT:
            refusal = NoAnswer(
                f"{IN_FLIGHT_LIMIT} requests wait already",
                f"{self._server}, {topic}",
                "ask again later",
            )
            self._loop.after(0, lambda: settled(refusal))
            return
        self._asks[number] = ask
        ask.timer = self._loop.after(deadline_s, lambda: self._expire(ask, deadline_s))
        if self._is_met:
            self._send_ask(ask)

    def _send_ask(self, ask: _Ask) -> bool:
        left_ms = int(max(0.0, ask.expires_at - self._loop.now()) * 1000)
        ask.is_sent = self._send(
            envelope.pack(
                ask.kind, ask.number, ask.topic, min(left_ms, envelope.DEADLINE_LIMIT_MS), ask.body
            )
        )
        return ask.is_sent

    def _send_all(self) -> None:
        for ask in list(self._asks.values()):
            if not ask.is_sent and not self._send_ask(ask):
                return
        while self._events:
            if not self._send(self._events[0]):
                return
            self._events.popleft()

    def _settle(self, number: int, outcome: Mapping[str, Any] | BusError) -> None:
        ask = self._asks.pop(number, None)
        if ask is not None:
            if ask.timer is not None:
                ask.timer.cancel()
            ask.settled(outcome)

    def _expire(self, ask: _Ask, deadline_s: float) -> None:
        self._silent += 1
        now = self._loop.now()
        if (
            self._silent >= SILENT_DEADLINES
            and now >= self._may_open_again_at
            and self._socket is not None
        ):
            self._may_open_again_at = now + self._patience_s
            self._patience_s = min(2 * self._patience_s, PATIENCE_LIMIT_S)
            self._close_socket()
            self._open()
        self._settle(ask.number, self._no_answer(ask.topic, deadline_s))

    def _no_answer(self, topic: str, deadline_s: float) -> NoAnswer:
        return NoAnswer(
            f"no answer within {deadline_s:g} s",
            f"{self._server}, {topic}",
            "ask again; see waagent-ps",
        )

    # subscriptions

    def _ask_for(self, topic: str) -> None:
        subscription = self._subscriptions[topic]
        body = {"instance": subscription.instance, "revision": subscription.revision}
        self._ask(
            envelope.SUBSCRIBE,
            topic,
            body,
            SUBSCRIBE_DEADLINE_S,
            lambda outcome: self._subscribed(topic, outcome),
        )

    def _subscribed(self, topic: str, outcome: Mapping[str, Any] | BusError) -> None:
        if isinstance(outcome, Refused):
            self._faults.seen(f"bus subscribe {topic}", str(outcome))

    def _ask_for_all(self) -> None:
        self._again = self._loop.after(_until_next(self._loop.now()), self._ask_for_all)
        if self._is_met:
            for topic in self._subscriptions:
                self._ask_for(topic)


def _until_next(now: float) -> float:
    """Seconds to the next multiple of ASK_AGAIN_S: all workers ask together, the VM wakes once."""
    return ASK_AGAIN_S - now % ASK_AGAIN_S
