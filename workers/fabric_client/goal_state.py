"""The goal state: polled, compared with the last one, read by transfer when it changed, told to the
other workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import next_pause_s, spread_s
from waagent.protocol.bus import topics
from waagent.protocol.bus.topics import BodyError, GoalStateSummary, HandlerGoal
from waagent.protocol.wire import constants, headers
from waagent.protocol.wire.status_blob import UNSUPPORTED_FEATURES_CODE, GoalStateOutcome
from waagent.protocol.wire.urls import without_query
from waagent.workers.fabric_client import choice, vm_settings
from waagent.workers.fabric_client.brake import Brake
from waagent.workers.fabric_client.channels import Channels
from waagent.workers.fabric_client.endpoint import Link
from waagent.workers.fabric_client.floor import Floor
from waagent.workers.fabric_client.http_exchange import Outcome
from waagent.workers.fabric_client.status_upload import now_text
from waagent.workers.fabric_client.transfer_process import Frame, Transfer

if TYPE_CHECKING:
    from waagent.workers.loop import Timer
    from waagent.workers.runtime import Worker

DOCUMENTS_DEADLINE_S = 90.0
EARLY_S, EARLY_LIMIT = 1.0, 10  # before the first goal state: the network is only just coming up
THROTTLED = (429, 503)  # the platform asks for fewer requests: only then the period is not kept
PAUSES_S = (5.0, 10.0, 20.0, 30.0, 60.0)
AGAIN_LIMIT_S = 15.0  # after any other failure, whatever the period is


class Goal:
    """What the platform wants. Invariant: ``ids``, ``handlers`` and ``outcome`` come from documents
    that were read whole.
    """

    def __init__(
        self,
        worker: Worker,
        link: Link,
        transfer: Transfer,
        *,
        identified: Callable[[bool], None],
        changed: Callable[[GoalStateSummary], None],
        concluded: Callable[[], None],
        nothing_new: Callable[[], None],
        certificates: Callable[[str], None],
        document: Callable[[str, bytes, str], None],
        channels: Channels,
        proxies: Callable[[], dict[str, str]],
    ) -> None:
        """``identified(new incarnation)`` as soon as the ids are known, ``certificates`` gets where
        they are, ``document`` one (name, content, SHA-256), ``changed`` a new summary;
        ``concluded`` is called when ``outcome`` says something else than before, ``nothing_new``
        after a poll that brought no goal state that could be used, or the one that is known.
        """
        self._worker, self._link, self._transfer, self._faults = (
            worker,
            link,
            transfer,
            worker.faults,
        )
        self._document, self._channels, self._proxies = document, channels, proxies
        self._identified, self._changed = identified, changed
        self._concluded, self._nothing_new, self._certificates = (
            concluded,
            nothing_new,
            certificates,
        )
        self.ids: dict[str, Any] | None = None
        self.handlers: dict[str, HandlerGoal] = {}
        self.manifest_urls: dict[str, list[str]] = {}
        self.status_url, self.status_blob_type = "", constants.BLOCK_BLOB
        self.outcome: GoalStateOutcome | None = None
        self.thumbprints: tuple[str, ...] = ()
        self._extensions: Frame | None = None
        self._versions: bytes | None = None
        self._is_version_known = False
        self._body: bytes | None = None
        """The goal state that was read whole: the next one is compared with it."""
        self._is_under_way = False
        self._fabric: Frame | None = None
        self._fast: Frame | None = None
        self._floor = Floor(worker.paths.cache, worker.log)
        self._vm_settings = vm_settings.VmSettings(worker, link, transfer)
        self._brake = Brake()
        self._soon: Timer | None = None
        self._failures = 0
        self._not_before = 0.0
        self._again = worker.loop.after(0, lambda: None)
        """The next attempt after a failure, should the period be longer."""

    # polling

    def poll(self) -> None:
        """Ask once; nothing while the last question is under way, or while failures impose a
        pause.
        """
        if (
            self._is_under_way
            or not self._link.address
            or self._worker.loop.now() < self._not_before
        ):
            return
        self._is_under_way = True
        if self._is_version_known:
            self._ask()
        else:
            limit_bytes = constants.VERSIONS_LIMIT_BYTES
            self._link.wire(
                "GET",
                constants.VERSIONS_PATH,
                {},
                "versions",
                self._versions_come,
                limit_bytes=limit_bytes,
            )

    def refresh(self, reason: str) -> None:
        """The identifiers are stale: read the goal state again soon, whether it looks changed or
        not, as often as the brake allows.
        """
        if self._soon is None:
            self._worker.log.debug("goal state is read again: %s", reason)
            self._faults.seen("stale", f"goal state is read again: {reason}")
        self._ask_soon()

    @property
    def is_fast_track(self) -> bool:
        """Whether the extensions that are followed came from the host."""
        return choice.is_fast_track(self._extensions)

    @property
    def features(self) -> tuple[str, ...]:
        """What the status blob says that this agent can do."""
        return ("FastTrack",) if self._vm_settings.is_supported else ()

    def forget(self) -> None:
        """Another platform: negotiate again, read everything again."""
        self._vm_settings.forget()
        self._is_version_known, self._versions, self._body, self._not_before = (
            False,
            None,
            None,
            0.0,
        )

    def _ask_soon(self) -> None:
        """At the pace of the brake, whatever the platform says."""
        if self._soon is None:
            pause_s = self._brake.pause_s(self._worker.loop.now())
            self._soon = self._worker.loop.after(pause_s, self._poll_soon)

    def _poll_soon(self) -> None:
        self._soon = None
        self._body, self._not_before = None, 0.0
        self._vm_settings.forget()
        self.poll()

    def _versions_come(self, outcome: Outcome) -> None:
        if outcome.answer is None or outcome.answer.status != 200:
            self._failed("versions", _reason(outcome), is_throttled=_is_throttled(outcome))
            return
        self._versions = outcome.answer.body
        self._ask()

    def _ask(self) -> None:
        self._link.wire(
            "GET",
            constants.GOAL_STATE_PATH,
            headers.wire_headers(),
            "goal state",
            self._goal_state_comes,
            limit_bytes=constants.GOAL_STATE_LIMIT_BYTES,
        )

    def _goal_state_comes(self, outcome: Outcome) -> None:
        if outcome.answer is None or outcome.answer.status != 200:
            self._failed("goal state", _reason(outcome), is_throttled=_is_throttled(outcome))
        elif outcome.answer.body == self._body:
            self._ask_host(None, [])
        else:
            self._read(outcome.answer.body)

    # reading

    def _read(self, body: bytes) -> None:
        failed: list[tuple[str, str]] = []

        def take(frame: Frame) -> None:
            kind = frame.get("kind")
            if kind == "ids":
                self._take_identifiers(frame)
            elif kind == "extensions":
                self._fabric = frame
            elif kind == "document":
                self._document(str(frame["name"]), frame["data"], str(frame["sha256"]))
            elif kind == "failed":
                failed.append((str(frame.get("part")), str(frame.get("text"))[:500]))

        def end(error: str) -> None:
            if error:
                failed.append(("goal state", error))
            self._ask_host(body, failed)

        job = {
            "operation": "goal_state",
            "versions": self._versions,
            "body": body,
            "endpoint": self._link.address,
            "port": self._link.ports.wire,
            "hostplugin_port": self._link.ports.hostplugin,
            "channels": self._channels.order(self._worker.loop.now()),
            "proxies": self._proxies(),
        }
        self._transfer.run(job, deadline_s=DOCUMENTS_DEADLINE_S, on_frame=take, on_end=end)

    def _take_identifiers(self, frame: Frame) -> None:
        self._is_version_known, self._versions = True, None
        is_new = self.ids is None or self.ids["incarnation"] != frame["incarnation"]
        was = self.ids
        self.ids = frame
        self._worker.supervisor.tell(incarnation=str(frame["incarnation"]))
        if is_new:
            self._worker.log.info("goal state changed incarnation=%s", frame["incarnation"])
        elif was is not None and was["container_id"] != frame["container_id"]:
            self._worker.log.info("container changed container=%s", frame["container_id"])
        self._identified(is_new)
        if is_new or was is None or was["certificates"] != frame["certificates"]:
            self._certificates(str(frame["certificates"]))
        if self._extensions is None:
            self._publish(is_complete=False)

    def _ask_host(self, body: bytes | None, failed: list[tuple[str, str]]) -> None:
        """What the host wants, which may be newer; ``body`` was read, None: nothing new in it."""

        def known(kind: str, frame: Frame | None) -> None:
            if kind == vm_settings.CHANGED and frame is not None:
                self._fast = frame if choice.is_fast_track(frame) else None
                if self._fast is None:
                    self._floor.forget()
            elif kind == vm_settings.ABSENT:
                self._fast = None
            elif kind == vm_settings.STALE:
                self.refresh("the host no longer knows our container")
            self._follow()
            self._read_over(body, failed)

        fast_track = self._worker.configuration.get("Debug.EnableFastTrack", True)
        if self.ids is None or not fast_track:
            known(vm_settings.ABSENT, None)
        else:
            self._vm_settings.ask(self.ids, known)

    def _follow(self) -> None:
        """Take the newer one of what WireServer and host want."""
        chosen = choice.choose(self._fabric, self._fast, self._extensions, self._floor.ticks)
        if chosen.is_outdated:
            self._faults.seen(
                "outdated",
                "the WireServer's extensions are older than those that were followed last:"
                " ExtensionsConfig: none needed, nothing of them is carried out until the host"
                " answers",
            )
        else:
            self._faults.ended("outdated", "the goal state is up to date again")
        if chosen.followed is not None and chosen.followed is not self._extensions:
            self._take_extensions(chosen.followed)

    def _take_extensions(self, frame: Frame) -> None:
        try:
            handlers = [topics.from_body(HandlerGoal, body) for body in frame["handlers"]]
        except BodyError as error:
            self._faults.seen("extensions", f"transfer said {error}: extensions: tell its makers")
            return
        if choice.is_fast_track(frame):
            self._floor.keep(frame["created_ticks"])
            self._worker.log.info("goal state changed %s by the host", frame["goal_state_id"])
        self._extensions = frame
        self.handlers = {handler.name.lower(): handler for handler in handlers}
        self.manifest_urls = frame["manifest_urls"]
        self.status_url, self.status_blob_type = frame["status_url"], frame["status_blob_type"]
        self._tell_oddities(frame, handlers)
        unsupported = frame["unsupported_features"]
        if unsupported:
            self._outcome(
                UNSUPPORTED_FEATURES_CODE,
                "required features are not supported: " + ", ".join(unsupported),
            )
        else:
            self._outcome(0, "GoalState executed successfully")
        self._publish(is_complete=True)
        self._look_for_certificates(handlers)

    def _tell_oddities(self, frame: Frame, handlers: list[HandlerGoal]) -> None:
        for finding in frame["findings"]:
            self._faults.seen(
                f"finding {str(finding)[:60]}", f"extensions: {without_queries(str(finding)[:300])}"
            )
        for handler in handlers:
            if handler.error:
                text = (
                    f"handler={handler.name!r}: {handler.error[:300]}: extensions: the"
                    " publisher or the platform must correct it"
                )
                self._faults.seen(f"handler {handler.name}", text)
        if self._is_held():
            self._worker.log.info("extensions are on hold, as the platform asks")

    def _look_for_certificates(self, handlers: list[HandlerGoal]) -> None:
        """What the host wants may need a certificate that came without a new incarnation."""
        assert self.ids is not None
        needed = {
            extension.certificate_thumbprint
            for handler in handlers
            for extension in handler.extensions
            if extension.protected_settings
        }
        if choice.is_fast_track(self._extensions) and needed - {*self.thumbprints}:
            self._certificates(str(self.ids["certificates"]))

    def _is_held(self) -> bool:
        over_provisioning = self._worker.configuration.get("EnableOverProvisioning", True)
        return bool(over_provisioning and self._extensions and self._extensions["is_on_hold"])

    def _outcome(self, code: int, message: str) -> None:
        assert self.ids is not None
        before, sequence = self.outcome, self.ids["incarnation"]
        if choice.is_fast_track(self._extensions) and code != -1:
            number = str((self._extensions or {})["sequence"])
            sequence = int(number) if number.isdigit() else number
        self.outcome = GoalStateOutcome(sequence, now_text(), code, message)
        if before is None or (before.sequence, before.code, before.message) != (
            sequence,
            code,
            message,
        ):
            self._concluded()

    def _read_over(self, body: bytes | None, failed: list[tuple[str, str]]) -> None:
        self._is_under_way = False
        if not failed:
            self._succeeded()
            if body is None:
                self._nothing_new()
            elif self._soon is None:
                self._body = body
            return
        part, text = failed[0]
        if part == "ExtensionsConfig" and self.ids is not None:
            self._outcome(-1, f"Error parsing ExtensionsConfig: {text}")
        if part == "RoleInstance":
            self._ask_soon()
        self._failed(part, "; ".join(text for _, text in failed))

    def _succeeded(self) -> None:
        self._failures, self._not_before = 0, 0.0
        self._again.cancel()
        self._faults.ended("goal state", "goal state is read again")
        self._worker.supervisor.doing(
            f"goal state {self.ids['incarnation']}" if self.ids else "polling"
        )

    def _failed(self, part: str, text: str, *, is_throttled: bool = False) -> None:
        self._is_under_way = False
        self._failures += 1
        again_s = AGAIN_LIMIT_S
        if is_throttled:
            again_s = spread_s(next_pause_s(self._failures, PAUSES_S))
            self._not_before = self._worker.loop.now() + again_s
        text = without_queries(text)
        self._faults.seen(
            "goal state",
            f"{part} cannot be used: {text}: none needed, asked again within {again_s:.0f} s",
        )
        self._again.cancel()
        self._again = self._worker.loop.after(again_s, self.poll)
        self._nothing_new()
        self._worker.supervisor.doing(f"platform: {text[:120]}")
        if self.ids is None and self._failures < EARLY_LIMIT:
            self._worker.loop.after(EARLY_S, self.poll)

    # telling

    def take_thumbprints(self, thumbprints: tuple[str, ...]) -> None:
        """certificate_keeper has written these."""
        if thumbprints != self.thumbprints:
            self.thumbprints = thumbprints
            self._worker.log.info("certificates present count=%d", len(thumbprints))
        self._publish(is_complete=self._extensions is not None)

    def _publish(self, *, is_complete: bool) -> None:
        """The summary as of the extensions part that was read last; before the first one, the
        identifiers alone.
        """
        if self.ids is None:
            return
        extensions, is_held = self._extensions, self._is_held()
        self._changed(
            GoalStateSummary(
                incarnation=self.ids["incarnation"],
                container_id=self.ids["container_id"],
                instance_id=self.ids["instance_id"],
                goal_state_id=(
                    extensions["goal_state_id"]
                    if extensions
                    else f"incarnation_{self.ids['incarnation']}"
                ),
                endpoint=self._link.address,
                probe_ports=tuple(self.ids["probe_ports"]),
                handlers=(
                    () if is_held else tuple(handler.name for handler in self.handlers.values())
                ),
                certificates=self.thumbprints,
                extensions_complete=is_complete and not is_held,
                unsupported_features=(
                    tuple(extensions["unsupported_features"]) if extensions else ()
                ),
            )
        )


def _is_throttled(outcome: Outcome) -> bool:
    return outcome.answer is not None and outcome.answer.status in THROTTLED


def _reason(outcome: Outcome) -> str:
    return outcome.error if outcome.answer is None else f"status {outcome.answer.status}"


def without_queries(text: str) -> str:
    """``text`` with every URL cut at its query."""
    return " ".join(without_query(word) if "://" in word else word for word in text.split(" "))
