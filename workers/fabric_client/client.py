"""The parts of fabric_client and how they are joined: who may ask what, and what follows from a
goal state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import spread_s
from waagent.protocol.bus import parts, topics
from waagent.protocol.wire import constants, health, proxies
from waagent.workers.fabric_client import status_upload
from waagent.workers.fabric_client.certificates import Keys
from waagent.workers.fabric_client.channels import Channels
from waagent.workers.fabric_client.endpoint import Link, Ports
from waagent.workers.fabric_client.goal_state import Goal
from waagent.workers.fabric_client.handed_connections import HandedConnections
from waagent.workers.fabric_client.host_health import HostHealth, Pace
from waagent.workers.fabric_client.keeper import Keeper
from waagent.workers.fabric_client.library_files import LibraryFiles
from waagent.workers.fabric_client.outbox import Delivery
from waagent.workers.fabric_client.packages import Packages
from waagent.workers.fabric_client.remote_access import RemoteAccess
from waagent.workers.fabric_client.status_upload import Status
from waagent.workers.fabric_client.telemetry import Telemetry
from waagent.workers.fabric_client.transfer_process import Transfer

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.runtime import Worker

PERIOD_S = 6.0
DISABLED_PERIOD_S = 300.0  # Extensions.Enabled=n
CONSUMERS = ("Role.ConfigurationConsumer", "Role.TopologyConsumer")
PROVISIONER, RUNNER, PROBES = "provisioner", "extension_runner", "probe_responder"


class FabricClient:
    """The parts and how they are joined. Invariant: it holds nothing that the platform or another
    worker could not say again.
    """

    def __init__(self, worker: Worker, ports: Ports, pace: Pace) -> None:
        self.worker = worker
        self.server = worker.bus.serve()
        self.environment = worker.bus.client("environment_monitor")
        self.handed = HandedConnections(worker)
        self.link = Link(worker, ports, self.environment, self.handed)
        self.transfer = Transfer(worker, worker.paths.cache, self.handed)
        keeper, self.channels = Keeper(worker), Channels()
        self.keys = Keys(worker, self.link, self.transfer, keeper, self._certificates_present)
        self.library_files = LibraryFiles(worker, keeper, self._documents_written)
        self.remote_access = RemoteAccess(worker, self.link, self.transfer, keeper)
        self.goal = Goal(
            worker,
            self.link,
            self.transfer,
            identified=self._identified,
            changed=self._changed,
            concluded=self._concluded,
            nothing_new=self._nothing_new,
            certificates=self.keys.fetch,
            document=self.library_files.take,
            channels=self.channels,
            proxies=self._proxies,
        )
        self.link.on_reopened(self.goal.poll)
        self.status = Status(
            worker, self.link, self.transfer, self.goal, self.channels, self._proxies
        )
        self.packages = Packages(
            worker,
            self.link,
            self.transfer,
            self.goal,
            worker.paths.cache,
            self.channels,
            self._proxies,
        )
        self.host_health = HostHealth(worker, self.link, self.goal, pace)
        self.telemetry = Telemetry(
            worker, self.link, self.goal, lambda: self.host_health.compute, pace.events_s
        )
        self.health, self.properties = self._deliveries()
        self._phase = spread_s(0.5, 1.0)
        self._runs_extensions = False
        self._probe_ports: tuple[int, ...] | None = None

    def _deliveries(self) -> tuple[Delivery, Delivery]:
        """Health report and role properties."""
        health_report = Delivery(
            self.worker,
            self.link,
            "health report",
            constants.HEALTH_PATH,
            body_of=self._health_body,
            accepted=self._health_accepted,
            stale=self._identifiers_stale,
        )
        properties = Delivery(
            self.worker,
            self.link,
            "role properties",
            constants.PROPERTIES_PATH,
            body_of=self._properties_body,
            accepted=self._properties_accepted,
            stale=self._identifiers_stale,
        )
        return health_report, properties

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
        """Once the endpoint is known, then in steps of the period, at an offset of our own: a
        fleet that was started at once must not ask at once.
        """
        self.worker.supervisor.on_configure(
            lambda: None
        )  # options are looked at when they are used
        self.worker.supervisor.doing("waiting for the endpoint")
        self.environment.subscribe(topics.ENDPOINT, self._endpoint)
        self._poll_next()

    def _poll_next(self) -> None:
        period_s = self._period_s()
        now = self.worker.loop.now() + period_s * self._phase
        self.worker.loop.after(period_s - now % period_s, self._poll_in_step)

    def _poll_in_step(self) -> None:
        # whether or not a goal state comes: the platform calls a silent agent dead
        self.status.has_changed(status_upload.PATIENCE_S)
        self.goal.poll()
        self._poll_next()

    def _period_s(self) -> float:
        enabled = self.worker.configuration.get("Extensions.Enabled", True)
        configured = self.worker.configuration.get("Extensions.GoalStatePeriod") or PERIOD_S
        return max(1.0, float(configured)) if enabled else DISABLED_PERIOD_S

    def _proxies(self) -> dict[str, str]:
        problem = proxies.problem(self.worker.configuration)
        if problem:
            self.worker.faults.seen("proxy", problem)
        return proxies.proxies(self.worker.configuration, os.environ)

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
        if self._is_ready_known():
            self.properties.want(fingerprint, request)
        else:
            self.properties.want(fingerprint)
            request.refuse("it is told once the platform has accepted Ready")

    def _handler_asked(self, request: Request) -> Mapping[str, Any] | None:
        goal = self.goal.handlers.get(str(request.body.get("name")).lower())
        if goal is None:
            request.refuse("not in the goal state")
            return None
        body, number = topics.to_body(goal), request.body.get("part", 0)
        part = parts.cut(body, number if isinstance(number, int) else 0)
        return body if part is None else topics.to_body(part)

    def _status_told(self, request: Request) -> Mapping[str, Any]:
        report = topics.from_body(topics.ExtensionReport, request.body)
        if self.status.take(report) and status_upload.is_result(report):
            self.telemetry.add(
                "ExtensionProcessing",
                f"{report.handler_status}, code {report.handler_code}",
                is_success=report.handler_code == 0,
                name=report.handler,
                version=report.version,
            )
        return {}

    # what follows from a goal state

    def _identified(self, is_new: bool) -> None:
        assert self.goal.ids is not None
        self.health.look()
        self.properties.look()
        self.remote_access.look(str(self.goal.ids["remote_access"]), is_new=is_new)
        self.host_health.begin()
        self.telemetry.begin()
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

    def _documents_written(self, hashes: Mapping[str, str]) -> None:
        """extension_runner may run the programs of the role that look at them."""
        self.server.publish(topics.ROLE_DOCUMENTS, hashes)
        if any(self.worker.configuration.get(option) for option in CONSUMERS):
            self.worker.supervisor.want(RUNNER)

    def _concluded(self) -> None:
        outcome = self.goal.outcome
        if outcome is not None:
            self.telemetry.add("GoalState", outcome.message, is_success=outcome.code == 0)
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
        self.telemetry.add(
            "Provision", report.substatus or report.state, is_success=not report.substatus
        )
        self.worker.log.info(
            "health accepted state=%s substatus=%s", report.state, report.substatus or "-"
        )
        self.properties.look()

    def _properties_accepted(self, fingerprint: str) -> None:
        self.worker.supervisor.tell(fingerprint=fingerprint)
        self.worker.log.info("role properties accepted")

    def _properties_body(self, fingerprint: str) -> bytes | None:
        ids = self.goal.ids
        if ids is None or not self._is_ready_known():
            return None
        return health.role_properties(ids["container_id"], ids["instance_id"], fingerprint)

    def _is_ready_known(self) -> bool:
        """Role properties follow Ready, once; nobody says Ready to us where cloud-init did."""
        wanted = self.health.wanted
        return wanted is None or (self.health.is_accepted and wanted.state == "Ready")
