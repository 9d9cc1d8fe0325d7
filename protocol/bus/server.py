"""The serving end of the bus: requests are answered, values are kept with a revision and told to
who subscribed.

A subscription is answered at once with the last value, then each change follows. A subscriber that
takes nothing (EAGAIN) is marked stale and sent the newest at its next word. A probe (an empty
frame, sent by libzmq when a client connects) is answered with the instance id, by which a client
knows that it met a new server.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import zmq

from waagent.protocol.base.records import Record
from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus import envelope, sockets
from waagent.protocol.bus.admission import Admission
from waagent.protocol.bus.bus_errors import EnvelopeError
from waagent.protocol.bus.bus_loop import Loop
from waagent.protocol.bus.topics import BodyError

EVERYONE = frozenset({"*"})
SUBSCRIBERS_LIMIT = 128
TOPICS_PER_SUBSCRIBER = 32


class Request:
    """A request as its handler sees it. Invariant: it is answered at most once."""

    def __init__(
        self,
        server: Server,
        peer: bytes,
        sender: str,
        message: envelope.Envelope,
        arrived_at: float,
    ) -> None:
        self._server = server
        self._peer = peer
        self._number = message.id
        self._expires_at = arrived_at + message.deadline_ms / 1000
        self._is_open = True
        self.sender = sender
        """The worker that asks, as admission knows it."""
        self.topic = message.topic
        self.body: dict[str, Any] = message.body

    @property
    def deadline_s(self) -> float:
        """Time that is left to answer; 0 when it is over."""
        return max(0.0, self._expires_at - self._server.now())

    def answer(self, body: Mapping[str, Any]) -> None:
        """Answer; a body over the limits becomes a refusal that says so."""
        try:
            frame = envelope.pack(envelope.ANSWER, self._number, self.topic, 0, body)
        except EnvelopeError as error:
            self.refuse(f"the answer cannot cross: {error.what}")
            return
        self._finish(frame)

    def refuse(self, text: str) -> None:
        """Answer that it will not be done, and why."""
        self._finish(
            envelope.pack(envelope.ERROR, self._number, self.topic, 0, {"text": text[:4096]})
        )

    def _finish(self, frame: bytes) -> None:
        if self._is_open:
            self._is_open = False
            self._server.send(self._peer, frame)


Handler = Callable[[Request], "Mapping[str, Any] | None"]


class _Value(Record):
    revision: int
    body: dict[str, Any]
    allowed: frozenset[str]


class _Subscriber:
    """One connection that subscribed. Invariant: what is in ``stale`` is in ``topics``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.topics: set[str] = set()
        self.stale: set[str] = set()


class Server:
    """A worker's serving socket. Invariant: no frame of a sender that admission has not named
    reaches a handler.
    """

    def __init__(
        self,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        path: Path,
        listener: int,
        *,
        state: int,
        faults: Faults,
    ) -> None:
        """Serve on ``listener`` (a raw descriptor, libzmq's from here on), which listens on
        ``path``.
        """
        self._loop = loop
        self._faults = faults
        self.admission = Admission(loop, context, state, faults)
        self._socket = sockets.open_router(context, path, listener)
        self.instance = os.urandom(8).hex()
        self.counts: Counter[str] = Counter()
        """What was dropped: frames, bad, forbidden, unsent."""
        self._handlers: dict[tuple[str, str], tuple[frozenset[str], Handler]] = {}
        self._values: dict[str, _Value] = {}
        self._subscribers: dict[bytes, _Subscriber] = {}
        loop.on_readable(self._socket, self._receive_all)

    def now(self) -> float:
        """The clock of deadlines."""
        return self._loop.now()

    def on_request(self, topic: str, allowed: Iterable[str], handler: Handler) -> None:
        """``handler`` gets the requests of ``topic`` from the workers ``allowed`` (EVERYONE: all
        that are admitted).

        What it returns is the answer; None: it answers later by `Request.answer` or
        `Request.refuse`. A BodyError is a refusal.
        """
        self._handlers[(envelope.REQUEST, topic)] = (frozenset(allowed), handler)

    def publish(
        self, topic: str, body: Mapping[str, Any], allowed: Iterable[str] = EVERYONE
    ) -> None:
        """Make ``body`` the value of ``topic``; an equal one changes nothing. Raises EnvelopeError
        over the limits.
        """
        known = self._values.get(topic)
        if known is not None and known.body == body:
            return
        value = _Value(known.revision + 1 if known else 1, dict(body), frozenset(allowed))
        self._frame_of(topic, value, 0)
        self._values[topic] = value
        for peer in list(self._subscribers):
            subscriber = self._subscribers.get(peer)
            if subscriber is not None and topic in subscriber.topics:
                self._tell(peer, subscriber, topic, 0)

    def close(self) -> None:
        """Serve nobody any more."""
        self._loop.forget(self._socket)
        self._socket.close(0)
        self.admission.close()

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send without waiting; False when ``peer`` takes nothing now, or is gone."""
        try:
            self._socket.send_multipart((peer, frame), zmq.NOBLOCK)
        except zmq.Again:
            self.counts["unsent"] += 1
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._subscribers.pop(peer, None)
            return False
        return True

    # receiving

    def _receive_all(self) -> None:
        for _ in range(sockets.FRAMES_PER_TURN):
            try:
                peer = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            # libzmq has all frames of a message or none
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            sender = _user_id(frame)
            extra = self._drop_rest(frame.more)
            if extra:
                self.counts["frames"] += extra
                self._bad(sender, f"{extra} frames too many")
            elif sender:
                self._take(peer, sender, frame)

    def _drop_rest(self, more: bool) -> int:
        dropped = 0
        while more:
            more = self._socket.recv(zmq.NOBLOCK, copy=False).more
            dropped += 1
        return dropped

    def _take(self, peer: bytes, sender: str, frame: zmq.Frame) -> None:
        arrived_at = self.now()
        if len(frame) == 0:
            self.send(
                peer,
                envelope.pack(envelope.EVENT, 0, sockets.INSTANCE, 0, {"instance": self.instance}),
            )
            return
        try:
            message = envelope.unpack(frame.buffer)
        except EnvelopeError as error:
            self._bad(sender, error.what)
            return
        self._catch_up(peer)
        if message.kind == envelope.SUBSCRIBE:
            self._subscribe(peer, sender, message)
        elif message.kind in (envelope.REQUEST, envelope.EVENT):
            self._dispatch(Request(self, peer, sender, message, arrived_at), message.kind)
        else:
            self._bad(sender, f"a server is not told {message.kind}")

    def _dispatch(self, request: Request, kind: str) -> None:
        allowed, handler = self._handlers.get((kind, request.topic), (frozenset(), None))
        if handler is None or not _is_allowed(request.sender, allowed):
            self.counts["forbidden"] += 1
            text = "no such topic here" if handler is None else f"{request.sender} may not ask this"
            self._faults.seen(
                f"bus forbidden {request.sender}",
                f"refused {kind} {request.topic!r}: {request.sender}: {text}",
            )
            if kind == envelope.REQUEST:
                request.refuse(text)
            return
        try:
            answer = handler(request)
        except BodyError as error:
            self._bad(request.sender, f"{request.topic}: {error}")
            if kind == envelope.REQUEST:
                request.refuse(str(error))
            return
        if answer is not None and kind == envelope.REQUEST:
            request.answer(answer)

    def _bad(self, sender: str, text: str) -> None:
        self.counts["bad"] += 1
        self._faults.seen(
            f"bus bad {sender}", f"dropped what {sender or 'a stranger'} sent: bus: {text}"
        )

    # values

    def _subscribe(self, peer: bytes, sender: str, message: envelope.Envelope) -> None:
        topic = message.topic
        value = self._values.get(topic)
        subscriber = self._subscribers.get(peer)
        if subscriber is None:
            subscriber = self._subscribers[peer] = _Subscriber(sender)
            # the oldest is a connection long gone, or asks again
            if len(self._subscribers) > SUBSCRIBERS_LIMIT:
                del self._subscribers[next(iter(self._subscribers))]
        if value is not None and not _is_allowed(sender, value.allowed):
            self.counts["forbidden"] += 1
            self.send(
                peer,
                envelope.pack(
                    envelope.ERROR, message.id, topic, 0, {"text": f"{sender} may not read this"}
                ),
            )
            return
        if topic not in subscriber.topics and len(subscriber.topics) >= TOPICS_PER_SUBSCRIBER:
            self._bad(sender, "more subscriptions than topics")
            return
        subscriber.topics.add(topic)
        is_current = message.body.get("instance") == self.instance and message.body.get(
            "revision"
        ) == (value.revision if value else 0)
        if value is None or is_current:
            known = {"instance": self.instance, "revision": value.revision if value else 0}
            self.send(peer, envelope.pack(envelope.ANSWER, message.id, topic, 0, known))
        else:
            self._tell(peer, subscriber, topic, message.id)

    def _tell(self, peer: bytes, subscriber: _Subscriber, topic: str, number: int) -> None:
        value = self._values[topic]
        if not _is_allowed(subscriber.name, value.allowed):
            return
        if self.send(peer, self._frame_of(topic, value, number)):
            subscriber.stale.discard(topic)
        else:
            subscriber.stale.add(topic)

    def _catch_up(self, peer: bytes) -> None:
        subscriber = self._subscribers.get(peer)
        if subscriber is not None:
            for topic in sorted(subscriber.stale):
                self._tell(peer, subscriber, topic, 0)

    def _frame_of(self, topic: str, value: _Value, number: int) -> bytes:
        return envelope.pack(
            envelope.EVENT,
            number,
            topic,
            0,
            {"instance": self.instance, "revision": value.revision, "value": value.body},
        )


def _user_id(frame: zmq.Frame) -> str:
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:  # no metadata: a frame that no admission stands behind
        return ""


def _is_allowed(sender: str, allowed: frozenset[str]) -> bool:
    return sender in allowed or allowed is EVERYONE or "*" in allowed
