"""What the platform's own analysis is told of this agent: events, kept for a while and posted
several at once. Off with Telemetry.Enabled=n.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from waagent import __version__
from waagent.protocol.base.backoff import spread_s
from waagent.protocol.wire import constants, headers
from waagent.protocol.wire.telemetry import Event, Value, batches, event_text
from waagent.workers.fabric_client.http_exchange import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from waagent.workers.fabric_client.endpoint import Link
    from waagent.workers.fabric_client.goal_state import Goal
    from waagent.workers.runtime import Worker

KEPT_LIMIT = 256
HEARTBEAT_S = 1800.0
TRIES = 3
APART_S = 2.0  # between two requests: the server takes 15 in 15 s
UNKNOWN = "{}_UNINITIALIZED"


class Telemetry:
    """Invariant: at most KEPT_LIMIT events wait besides those that are being posted, the oldest go
    first; one request is under way; events never hold anything up.
    """

    def __init__(
        self,
        worker: Worker,
        link: Link,
        goal: Goal,
        compute: Callable[[], Mapping[str, str]],
        events_s: float,
    ) -> None:
        """``compute``: what instance metadata says of this VM."""
        self._worker, self._link, self._goal, self._compute = worker, link, goal, compute
        self._events_s = events_s
        self._waiting: deque[Event] = deque()
        """What is in no request yet."""
        self._lost = 0
        self._left: list[tuple[bytes, int]] = []
        self._tries = 0
        self._is_under_way = False
        """From the first request until the pause after the last one is over."""
        self._has_begun = False

    def begin(self) -> None:
        """The identifiers are known."""
        if not self._has_begun:
            self._has_begun = True
            self._heartbeat()
            self._worker.loop.after(spread_s(self._events_s, 0.5), self._send)

    @property
    def is_on(self) -> bool:
        """What Telemetry.Enabled says."""
        return bool(self._worker.configuration.get("Telemetry.Enabled", True))

    def add(
        self,
        operation: str,
        message: str,
        *,
        is_success: bool = True,
        name: str = "WALinuxAgent",
        version: str = "",
    ) -> None:
        """Something has happened; ``name`` and ``version`` of the handler, if it is about one."""
        if not self.is_on:
            return
        if len(self._waiting) >= KEPT_LIMIT:
            self._waiting.popleft()
            self._lost += 1
        now = time.time()
        at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}Z"
        self._waiting.append(Event(operation, is_success, message[:4096], at, name, version))

    def _heartbeat(self) -> None:
        self.add("HeartBeat", f"lost events: {self._lost}")
        self._worker.loop.after(HEARTBEAT_S, self._heartbeat)

    def _send(self) -> None:
        self._worker.loop.after(spread_s(self._events_s, 0.1), self._send)
        if not self.is_on:
            self._waiting.clear()
        if self._is_under_way or not self._waiting or self._goal.ids is None:
            return
        common = self._common(self._goal.ids)
        texts = [event_text(event, common, __version__) for event in self._waiting]
        self._waiting.clear()
        self._left, self._tries = list(batches(texts)), 0
        self._post()

    def _post(self) -> None:
        self._is_under_way = bool(self._left)
        if not self._left:
            return

        def posted(outcome: Outcome) -> None:
            answer = outcome.answer
            self._tries += 1
            if (answer is not None and answer.status in constants.OK_STATUSES) or (
                self._tries >= TRIES
            ):
                # after three tries they are given up: they are not worth a queue
                _, count = self._left.pop(0)
                self._lost += count if self._tries >= TRIES else 0
                self._tries = 0
            self._worker.loop.after(spread_s(APART_S * (1 + 3 * self._tries)), self._post)

        self._link.wire(
            "POST",
            constants.TELEMETRY_PATH,
            headers.wire_post_headers(),
            "telemetry",
            posted,
            body=self._left[0][0],
        )

    def _common(self, ids: Mapping[str, Any]) -> dict[str, Value]:
        names = {
            "Location": "location",
            "SubscriptionId": "subscriptionId",
            "ResourceGroupName": "resourceGroupName",
            "VMId": "vmId",
        }
        known = {
            name: self._compute().get(field) or UNKNOWN.format(name)
            for name, field in names.items()
        }
        return {
            "GAVersion": f"WALinuxAgent-{__version__}",
            "ContainerId": str(ids["container_id"]),
            "EventTid": os.getpid(),
            "EventPid": os.getpid(),
            "TaskName": self._worker.name,
            "OSVersion": f"Linux:{os.uname().release}",
            "ExecutionMode": "IAAS",
            "RAM": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
            "Processors": os.cpu_count() or 1,
            "KeywordName": f'{{"CpuArchitecture": "{os.uname().machine}"}}',
            "TenantName": UNKNOWN.format("TenantName"),
            "RoleName": UNKNOWN.format("RoleName"),
            "RoleInstanceName": str(ids["instance_id"]),
            "ImageOrigin": 0,
            **known,
        }
