"""What the platform is told, through fabric_client, which may be away for long: only the newest
word counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from waagent.protocol.bus import topics
from waagent.protocol.bus.bus_errors import NoAnswer, Refused
from waagent.workers.runtime import Worker

STARTING = topics.HealthReport("NotReady", "Provisioning", "Starting")
READY = topics.HealthReport("Ready")
_DEADLINE_S = 30.0
_AGAIN_S = 2.0
_WAIT_S = 300.0
FAILURE_LIMIT = 300  # of what goes with each heartbeat
_DESCRIPTION_LIMIT = 2048  # fabric_client cuts exactly; this keeps the message small


def failed(text: str) -> topics.HealthReport:
    """Provisioning failed, and why."""
    return topics.HealthReport("NotReady", "ProvisioningFailed", text[:_DESCRIPTION_LIMIT])


class Platform:
    """The platform as the provisioner sees it. Invariant: what was said last is asked again until
    it is accepted.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._client = worker.bus.client("fabric_client")
        self._wanted: topics.HealthReport | None = None
        self._is_accepted = False
        self._goal = topics.GoalStateSummary("", "", "", "", "")
        self._is_following = False

    def say(self, report: topics.HealthReport) -> None:
        """Have the platform know ``report``, as soon as it can be told; this replaces what was said
        before.
        """
        if report != self._wanted:
            self._wanted, self._is_accepted = report, False
            self._ask(report)

    def wait_accepted(self, limit_s: float | None = None) -> bool:
        """Until the last word was accepted: for ever, or ``limit_s`` at most."""
        reason = f"waiting for the platform to hear: {self._wanted.state if self._wanted else '-'}"
        if limit_s is not None:
            return self._worker.wait(lambda: self._is_accepted, limit_s, reason)
        while not self._worker.wait(lambda: self._is_accepted, _WAIT_S, reason):
            continue
        return True

    def tell_fingerprint(self, fingerprint: str, limit_s: float) -> bool:
        """Post the host key's fingerprint; whether it was accepted in time (fabric_client goes on
        trying all the same).
        """
        try:
            self._client.request(
                topics.PROPERTIES,
                {"fingerprint": fingerprint},
                deadline_s=limit_s,
                reason="telling the platform the host key",
            )
        except (NoAnswer, Refused):  # Refused: it follows Ready, which is not accepted yet
            return False
        return True

    def wait_certificates(self, thumbprints: frozenset[str], limit_s: float) -> bool:
        """Until the goal state's certificates with these thumbprints lie in the library, or the
        time is over.
        """
        if not self._is_following:
            self._is_following = True
            self._client.subscribe(topics.GOAL_STATE, self._follow)
        reason = f"waiting for {len(thumbprints)} certificates of the goal state"
        return self._worker.wait(
            lambda: thumbprints <= {one.upper() for one in self._goal.certificates}, limit_s, reason
        )

    def _follow(self, body: Mapping[str, Any], revision: int) -> None:
        self._goal = topics.from_body(topics.GoalStateSummary, body)

    def _ask(self, report: topics.HealthReport) -> None:
        if report is self._wanted:
            self._client.ask(
                topics.HEALTH,
                topics.to_body(report),
                deadline_s=_DEADLINE_S,
                done=partial(self._answered, report),
            )

    def _answered(
        self, report: topics.HealthReport, body: Mapping[str, Any] | None, error: str
    ) -> None:
        if report is not self._wanted:
            return
        if error:
            self._worker.log.debug("health not accepted yet: %s", error)
            self._worker.loop.after(_AGAIN_S, partial(self._ask, report))
            return
        self._is_accepted = True
        self._worker.log.info(
            "platform knows state=%s substatus=%s", report.state, report.substatus or "-"
        )
