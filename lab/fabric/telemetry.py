"""Telemetry as the WireServer takes it: one document of events per request, typed parameters, a
limit of its size and of requests in a time.
"""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from typing import Any

CALLS, PERIOD_S = 15, 15.0
BODY_LIMIT_BYTES = 1 << 16
PROVIDERS = {
    # provider                               ids of its events
    "69B669B9-4AF8-4C50-BDC4-6006FA76E975": ("1", "4"),
    "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F": ("7",),
}


class TelemetryError(Exception):
    """The document is not one that the platform takes; the text says why."""


class Rate:
    """How many requests came lately. Invariant: at most CALLS within PERIOD_S are admitted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[float] = deque()

    def admits(self) -> bool:
        now = time.monotonic()
        with self._lock:
            while self._times and self._times[0] < now - PERIOD_S:
                self._times.popleft()
            if len(self._times) >= CALLS:
                return False
            self._times.append(now)
            return True


def events_in(body: bytes) -> list[dict[str, Any]]:
    """The events of one document: provider, id, parameters. Raises TelemetryError."""
    if len(body) > BODY_LIMIT_BYTES:
        raise TelemetryError(f"{len(body)} bytes")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise TelemetryError(f"not XML: {error}") from error
    if root.tag != "TelemetryData" or root.get("version") != "1.0":
        raise TelemetryError(f"the root is {root.tag} {root.get('version')}")
    made = []
    for provider in root:
        name = provider.get("id", "").upper()
        if provider.tag != "Provider" or name not in PROVIDERS:
            raise TelemetryError(f"{provider.tag} {name!r}")
        for event in provider:
            if event.tag != "Event" or event.get("id") not in PROVIDERS[name]:
                raise TelemetryError(f"{event.tag} {event.get('id')!r} of {name}")
            parameters = _parameters(event.text or "")
            made.append({"provider": name, "id": event.get("id"), "parameters": parameters})
    if not made:
        raise TelemetryError("no events")
    return made


def _parameters(text: str) -> dict[str, Any]:
    try:
        root = ElementTree.fromstring(f"<Event>{text}</Event>")
    except ElementTree.ParseError as error:
        raise TelemetryError(f"an event is not XML: {error}") from error
    made: dict[str, Any] = {}
    for item in root:
        name, value, kind = item.get("Name"), item.get("Value"), item.get("T")
        if item.tag != "Param" or name is None or value is None or kind is None or len(item):
            raise TelemetryError(f"a parameter is {ElementTree.tostring(item).decode()[:200]}")
        made[name] = _typed(name, value, kind)
    return made


def _typed(name: str, value: str, kind: str) -> Any:
    if kind in ("mt:wstr", ""):
        return value
    if kind == "mt:bool" and value in ("True", "False"):
        return value == "True"
    try:
        if kind == "mt:uint64" and 0 <= int(value) < 1 << 64:
            return int(value)
        if kind == "mt:float64":
            return float(value)
    except ValueError:
        pass  # told with the others
    raise TelemetryError(f"parameter {name} is {value!r} of type {kind!r}")
