"""Looks once a minute whether HostGAPlugin and instance metadata answer, and tells the host's
health service; and keeps what metadata says of this VM.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import spread_s
from waagent.protocol.base.records import Record
from waagent.protocol.wire import constants, headers
from waagent.protocol.wire.telemetry import Observation, observations_body
from waagent.workers.fabric_client.http_exchange import Outcome

if TYPE_CHECKING:
    from waagent.workers.fabric_client.endpoint import Link
    from waagent.workers.fabric_client.goal_state import Goal
    from waagent.workers.runtime import Worker

PLUGIN_LIMIT_S, METADATA_LIMIT_S = 300.0, 180.0
"""So long nothing may be answered before it is called unhealthy."""
COMPUTE = (
    "location", "name", "offer", "osType", "publisher", "resourceGroupName", "sku",
    "subscriptionId", "version", "vmId", "vmSize", "zone",
)  # fmt: skip


class Pace(Record):
    """How often the host is told what does not matter to this VM; others only in tests."""

    first_s: float = 5.0  # provisioning comes first
    look_s: float = 60.0
    events_s: float = 60.0


class HostHealth:
    """Invariant: one look a minute, and nothing is asked again because it failed."""

    def __init__(self, worker: Worker, link: Link, goal: Goal, pace: Pace) -> None:
        self._worker, self._link, self._goal, self._pace = worker, link, goal, pace
        self._has_begun = False
        self._are_versions_known = False
        self._well_at: dict[str, float] = {}
        self._left = 0
        self._found: list[Observation] = []
        self.compute: dict[str, str] = {}
        """COMPUTE, as far as metadata has them; empty until it has answered."""

    def begin(self) -> None:
        """The identifiers are known."""
        if not self._has_begun:
            self._has_begun = True
            now = self._worker.loop.now()
            self._well_at = {"plugin": now, "metadata": now}
            self._worker.loop.after(spread_s(self._pace.first_s, 0.5), self._look)

    def _look(self) -> None:
        self._worker.loop.after(spread_s(self._pace.look_s, 0.05), self._look)
        ids = self._goal.ids
        if self._left or ids is None or not self._link.address:
            return
        self._found, self._left = [], 2 if self._are_versions_known else 3
        self._link.hostplugin(
            "GET", constants.PLUGIN_HEALTH_PATH, {}, "GET /health", self._plugin_answered
        )
        self._link.metadata(
            constants.METADATA_PATH, headers.metadata_headers(), self._metadata_answered
        )
        if not self._are_versions_known:
            self._link.hostplugin(
                "GET",
                constants.PLUGIN_VERSIONS_PATH,
                headers.plugin_versions_headers(ids["container_id"]),
                "GET /versions",
                self._versions_answered,
            )

    def _plugin_answered(self, outcome: Outcome) -> None:
        is_well = outcome.answer is not None and outcome.answer.status in constants.OK_STATUSES
        self._observe(
            "GuestAgentPluginHeartbeat", "plugin", PLUGIN_LIMIT_S, outcome, is_well=is_well
        )

    def _metadata_answered(self, outcome: Outcome) -> None:
        """5xx and 410 are its fault; that it is not there, or throttles, is not (classic VMs)."""
        answer = outcome.answer
        is_well = answer is None or not (answer.status >= 500 or answer.status == constants.GONE)
        if answer is not None and answer.status == 200:
            found = read_metadata(answer.body)
            is_well = found is not None
            self.compute = found or self.compute
        self._observe(
            "InstanceMetadataHeartbeat", "metadata", METADATA_LIMIT_S, outcome, is_well=is_well
        )

    def _versions_answered(self, outcome: Outcome) -> None:
        answer = outcome.answer
        is_well = answer is not None and answer.status == 200
        if answer is not None and answer.status == 200:
            self._are_versions_known = True
            if constants.HOSTPLUGIN_VERSION.encode() not in answer.body:
                is_well = False
                self._worker.log.warning(
                    "HostGAPlugin does not speak %s: /versions: none needed, storage is used"
                    " directly when it refuses",
                    constants.HOSTPLUGIN_VERSION,
                )
        description = "" if is_well else _reason(outcome)
        self._told(Observation("GuestAgentPluginVersions", is_well, description))

    def _observe(
        self, name: str, what: str, limit_s: float, outcome: Outcome, *, is_well: bool
    ) -> None:
        now = self._worker.loop.now()
        if is_well:
            self._well_at[what] = now
        is_healthy = now - self._well_at[what] < limit_s
        self._told(Observation(name, is_healthy, "" if is_well else _reason(outcome)))

    def _told(self, observation: Observation) -> None:
        self._found.append(observation)
        self._left -= 1
        if self._left == 0:
            self._link.wire(
                "POST",
                constants.HEALTH_SERVICE_PATH,
                headers.json_headers(),
                "health service",
                _ignored,
                body=observations_body(self._found),
            )


def read_metadata(data: bytes) -> dict[str, str] | None:
    """What of COMPUTE is in an answer; None when it has no network interface with an address."""
    try:
        found: Any = json.loads(data.decode("utf-8-sig"))
        interface = found["network"]["interface"][0]
        address = interface["ipv4"]["ipAddress"][0]["privateIpAddress"]
        if not interface["macAddress"] or not address:
            return None
        compute = found.get("compute") or {}
        return {name: str(compute[name])[:128] for name in COMPUTE if compute.get(name)}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return None


def _reason(outcome: Outcome) -> str:
    return outcome.error if outcome.answer is None else f"status {outcome.answer.status}"


def _ignored(outcome: Outcome) -> None:
    """Nothing is queued: the next minute has its own observations."""
