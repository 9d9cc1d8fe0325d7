"""Waiting for what the platform receives, with deadlines that print what was seen instead."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from waagent.lab.fabric.values import Recorded


class NotSeen(AssertionError):
    """What was waited for did not come; the text says what came."""


class Watching(ABC):
    """Wait helpers over `recorded`, `health`, `properties`, `statuses`; shared by the fabric and
    by whoever asks it from another process.
    """

    @property
    @abstractmethod
    def recorded(self) -> list[Recorded]:
        """Every request, in the order in which it was answered."""

    @property
    @abstractmethod
    def health(self) -> list[dict[str, Any]]:
        """Health reports that were accepted: incarnation, container_id, instance_id, state,
        substatus, description, time.
        """

    @property
    @abstractmethod
    def properties(self) -> list[dict[str, str]]:
        """Role properties that were accepted, each a map of name to value."""

    @property
    @abstractmethod
    def statuses(self) -> list[dict[str, Any]]:
        """Status documents, parsed, as the control plane reads them from the blob."""

    @property
    @abstractmethod
    def complaints(self) -> list[str]:
        """What a stricter platform would not have accepted."""

    @property
    @abstractmethod
    def telemetry(self) -> list[dict[str, Any]]:
        """Telemetry events that were accepted: provider, id, parameters, time."""

    @property
    @abstractmethod
    def observations(self) -> list[dict[str, Any]]:
        """What the health service was told: ObservationName, IsHealthy, Description, Value and
        time.
        """

    @property
    @abstractmethod
    def agent_logs(self) -> list[str]:
        """The uploaded log bundles, zips in base64."""

    def wait_for(
        self, is_there: Callable[[Any], T | None], deadline_s: float = 90.0, what: str = ""
    ) -> T:
        """The first true value of ``is_there(self)``. Raises NotSeen."""
        end = time.monotonic() + deadline_s
        while True:
            value = is_there(self)
            if value:
                return value
            if time.monotonic() > end:
                raise NotSeen(
                    f"{what or 'what was waited for'} did not come in {deadline_s:.0f} s;"
                    f" {self.summary()}"
                )
            time.sleep(0.1)

    def wait_ready(self, deadline_s: float = 90.0) -> dict[str, Any]:
        """The first health report that says Ready."""
        return self.wait_for(
            lambda fabric: next((item for item in fabric.health if item["state"] == "Ready"), None),
            deadline_s,
            "Ready",
        )

    def wait_status(
        self,
        is_it: Callable[[dict[str, Any]], Any],
        deadline_s: float = 90.0,
        what: str = "the status",
    ) -> dict[str, Any]:
        """The first status document for which ``is_it`` is true."""
        return self.wait_for(
            lambda fabric: next((item for item in fabric.statuses if is_it(item)), None),
            deadline_s,
            what,
        )

    def wait_extension(
        self,
        handler: str,
        status: str = "success",
        deadline_s: float = 90.0,
        sequence: int | None = None,
    ) -> dict[str, Any]:
        """The `status` object of ``handler`` once the blob reports it with ``status`` (and for
        ``sequence``).
        """

        def found(fabric: Any) -> dict[str, Any] | None:
            for document in reversed(fabric.statuses[-3:]):
                for entry in handlers_of(document):
                    settings = entry.get("runtimeSettingsStatus", {})
                    inner: dict[str, Any] = settings.get("settingsStatus", {}).get("status", {})
                    fits = sequence is None or settings.get("sequenceNumber") == sequence
                    if entry["handlerName"] == handler and inner.get("status") == status and fits:
                        return inner
            return None

        return self.wait_for(found, deadline_s, f"{handler} with status {status}")

    def summary(self) -> str:
        """What came so far, in a few lines."""
        asked = ((item, item.path.split("incarnation")[0][:70]) for item in self.recorded)
        counted = Counter(
            f"{item.server} {item.method} {path} -> {item.status}" for item, path in asked
        )
        lines = [f"{number} x {text}" for text, number in counted.most_common(12)]
        health = [
            f"{item['state']} {item['substatus']} {item['description']}".strip()
            for item in self.health[-3:]
        ]
        last = self.statuses[-1] if self.statuses else None
        handlers = [
            f"{entry['handlerName']} {entry.get('status')} {message_of(entry)}"[:200]
            for entry in (handlers_of(last) if last else [])
        ]
        return "seen:\n  " + "\n  ".join(
            [
                *lines,
                f"health: {health}",
                f"handlers: {handlers}",
                f"complaints: {self.complaints[-5:]}",
            ]
        )


def handlers_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The handler entries of a status document."""
    entries: list[dict[str, Any]] = document.get("aggregateStatus", {}).get(
        "handlerAggregateStatus", []
    )
    return entries


def message_of(entry: dict[str, Any]) -> str:
    """The text beside a handler's status in a status blob; empty when there is none."""
    return str(entry.get("formattedMessage", {}).get("message", ""))
