"""The parts of fabric_client and how they are joined: who may ask what, and what follows from a
goal state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.bus import topics
from waagent.protocol.wire import constants, health
from waagent.workers.fabric_client import status_upload
from waagent.workers.fabric_client.certificates import Keys
from waagent.workers.fabric_client.endpoint import Link, Ports
from waagent.workers.fabric_client.goal_state import Goal
from waagent.workers.fabric_client.handed_connections import HandedConnections
from waagent.workers.fabric_client.outbox import Delivery
from waagent.workers.fabric_client.packages import Packages
from waagent.workers.fabric_client.status_upload import Status
from waagent.workers.fabric_client.transfer_process import Transfer

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.runtime import Worker

PERIOD_S = 6.0
DISABLED_PERIOD_S = 300.0  # Extensions.Enabled=n
PROVISIONER, RUNNER, PROBES = "provisioner", "extension_runner", "probe_responder"


class FabricClient:
    """The parts and how they are joined. Invariant: it holds nothing that the platform or another
    worker could not say again.
    """

    def __init__(self, worker: Worker, ports: Ports) -> None:
        self.worker = worker
        self.server = worker.bus.serve()
        self.environment = worker.bus.client("environment_monitor")
        self.handed = HandedConnections(worker)
        self.link = Link(worker, ports, self.environment, self.handed)
        self.transfer = Transfer(worker, worker.paths.cache, self.handed)
        self.keys = Keys(worker, self.link, self.transfer, self._certificates_present)
        self.goal = Goal(
            worker,
            self.link,
            self.transfer,
            identified=self._identified,
            changed=self._changed,
            concluded=self._concluded,
            nothing_new=self._nothing_new,
            certificates=self.keys.fetch,
        )
        self.link.on_reopened(self.goal.poll)
        self.status = Status(worker, self.link, self.transfer, self.goal, self._proxy)
        self.packages = Packages(
            worker, self.link, self.transfer, self.goal, worker.paths.cache, self._proxy
        )
        stale = self._identifiers_stale
        self.health = Delivery(
            worker,
            self.link,
            "health report",
            constants.HEALTH_PATH,
            body_of=self._health_body,
            accepted=self._health_accepted,
            stale=stale,
        )
        self.properties = Delivery(
            worker,
            self.link,
            "role properties",
            constants.PROPERTIES_PATH,
            body_of=self._properties_body,
            accepted=self._properties_accepted,
            stale=stale,
        )
        self._runs_extensions = False
        self._probe_ports: tuple[int, ...] | None = None

    # messages in

    def serve(self) -> None:
        """Who may ask what."""
        self.server.on_request(topics.HEALTH, (PROVISIONER,), self._health_asked)
        self.server.on_request(topics.PROPERTIES, (PROVISIONER,), self._properties_asked)
        self.server.on_request(topics.HANDLER, (RUNNER,), self._handler_asked)
        self.server.on_request(topics.PACKAGE, (RUNNER,), self.packages.asked)
        self.server.on_request(topics.STATUS, (RUNNER,), self._status_told)

    def prepare(self) -> None:
        """What the first goal state shall not have to wait for."""
        self.transfer.prepare()
        self.packages.empty_spool()
        fingerprint = self.worker.told_before.get("fingerprint")
        if isinstance(fingerprint, str):
            self.properties.remember(fingerprint)

    def poll(self) -> None:
        """Once the endpoint is known, then at multiples of the period, when other workers of the
        agent wake too.
        """
        self.worker.supervisor.on_configure(
            lambda: None
        )  # options are looked at when they are used
        self.worker.supervisor.doing("waiting for the endpoint")
        self.environment.subscribe(topics.ENDPOINT, self._endpoint)
        self._poll_next()

    def _poll_next(self) -> None:
        period_s = self._period_s()
        self.worker.loop.after(period_s - self.worker.loop.now() % period_s, self._poll_in_step)

    def _poll_in_step(self) -> None:
        # whether or not a goal state comes: the platform calls a silent agent dead
        self.status.has_changed(status_upload.PATIENCE_S)
        self.goal.poll()
        self._poll_next()

    def _period_s(self) -> float:
        enabled = self.worker.configuration.get("Extensions.Enabled", True)
        configured = self.worker.configuration.get("Extensions.GoalStatePeriod") or PERIOD_S
        return max(1.0, float(configured)) if enabled else DISABLED_PERIOD_S

    def _proxy(self) -> str:
        host, port = (
            self.worker.configuration.get("HttpProxy.Host"),
            self.worker.configuration.get("HttpProxy.Port"),
        )
        return f"http://{host}:{port}" if host and port else ""

    def _endpoint(self, body: Mapping[str, Any], revision: int) -> None:
        endpoint = topics.from_body(topics.Endpoint, body)
        if endpoint.address != self.link.address:
            self.link.use(endpoint.address)
            self.goal.forget()
            self.goal.poll()

    def _health_asked(self, request: Request) -> None:
        self.health.want(topics.from_body(topics.HealthReport, request.body), request)

    def _properties_asked(self, request: Request) -> None:
        fingerprint = request.body.get("fingerprint")
        if not isinstance(fingerprint, str) or len(fingerprint) > 1024:
            raise topics.BodyError("fingerprint is missing or too long")
        self.properties.want(fingerprint, request)

    def _handler_asked(self, request: Request) -> Mapping[str, Any] | None:
        goal = self.goal.handlers.get(str(request.body.get("name")).lower())
        if goal is None:
            request.refuse("not in the goal state")
            return None
        return topics.to_body(goal)

    def _status_told(self, request: Request) -> Mapping[str, Any]:
        self.status.take(topics.from_body(topics.ExtensionReport, request.body))
        return {}

    # what follows from a goal state

    def _identified(self, is_new: bool) -> None:
        assert self.goal.ids is not None
        self.health.look()
        if is_new:
            self.properties.again()
        ports = tuple(self.goal.ids["probe_ports"])
        if ports != self._probe_ports:
            self._probe_ports = ports
            self.worker.supervisor.want(PROBES, ports) if ports else self.worker.supervisor.unwant(
                PROBES
            )

    def _changed(self, summary: topics.GoalStateSummary) -> None:
        if summary.handlers and not self._runs_extensions:
            # for the rest of this life: handlers that vanish are work too
            self._runs_extensions = True
            self.worker.supervisor.want(RUNNER)
        self.server.publish(topics.GOAL_STATE, topics.to_body(summary))
        self.status.has_changed(status_upload.PATIENCE_S)

    def _concluded(self) -> None:
        self.status.has_changed(status_upload.PATIENCE_S)

    def _nothing_new(self) -> None:
        self.status.send_what_is_due()

    def _certificates_present(self, thumbprints: tuple[str, ...]) -> None:
        self.goal.take_thumbprints(thumbprints)

    def _identifiers_stale(self) -> None:
        self.goal.refresh("the platform no longer knows our container")

    # what is posted

    def _health_body(self, report: topics.HealthReport) -> bytes | None:
        ids = self.goal.ids
        if ids is None:
            return None
        return health.health_report(
            ids["incarnation"],
            ids["container_id"],
            ids["instance_id"],
            report.state,
            report.substatus,
            report.description,
        )

    def _health_accepted(self, report: topics.HealthReport) -> None:
        self.worker.supervisor.tell(health=report.state)
        self.worker.log.info(
            "health accepted state=%s substatus=%s", report.state, report.substatus or "-"
        )

    def _properties_accepted(self, fingerprint: str) -> None:
        self.worker.supervisor.tell(fingerprint=fingerprint)
        self.worker.log.info("role properties accepted")

    def _properties_body(self, fingerprint: str) -> bytes | None:
        ids = self.goal.ids
        return (
            None
            if ids is None
            else health.role_properties(ids["container_id"], ids["instance_id"], fingerprint)
        )
