"""The emulated platform in this process: start it, give it a goal state, switch faults, look at
what it received.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waagent.lab.fabric import documents, hostplugin, storage, wireserver
from waagent.lab.fabric.authority import WRONG, Authority
from waagent.lab.fabric.blobs import Blobs, document_in
from waagent.lab.fabric.crypto import Tenant
from waagent.lab.fabric.faults import KINDS, TARGETS, Fault
from waagent.lab.fabric.http import Listener, Request
from waagent.lab.fabric.probing import Prober
from waagent.lab.fabric.telemetry import Rate
from waagent.lab.fabric.values import (
    FIRST_TICKS,
    PLUGIN_PORT,
    STORAGE_HOST,
    TICKS_PER_S,
    WIRE_PORT,
    Extension,
    LabError,
    Recorded,
    RemoteUser,
    VirtualMachine,
)
from waagent.lab.fabric.watching import Watching

RECORDED_LIMIT = 20_000
AGENT_LOGS_LIMIT = 5
AGENT_VERSIONS = ("2.15.0.1",)
"""What the manifest of each family of agents names."""


class Fabric(Watching):
    """WireServer, HostGAPlugin, storage and metadata on one address.

    Invariant: what `recorded`, `health`, `properties` and `statuses` say was received, in this
    order, and answered. Every public method may be called from any thread.
    """

    def __init__(
        self,
        address: str,
        wire_port: int = WIRE_PORT,
        plugin_port: int = PLUGIN_PORT,
        *,
        folder: Path | None = None,
        scheme: str = "https",
        also: Sequence[str] = (),
        tls: tuple[str, int] | None = None,
        storage_host: str = STORAGE_HOST,
    ) -> None:
        """``folder`` keeps the certificates (default: a temporary one); ``also`` names further
        addresses for port 80; ``tls`` is (address, port) where storage speaks TLS.

        ``storage_host`` stands in the URLs of blobs; "" takes the address and port of ``tls``.
        """
        self._scratch = (
            None if folder is not None else tempfile.TemporaryDirectory(prefix="waagent-fabric-")
        )
        kept = folder if folder is not None else Path(self._scratch.name)  # type: ignore[union-attr]  # one of them is there
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._missing_instance = 0
        self._protected: dict[str, tuple[str, str]] = {}
        self._keep_nothing()
        self._issued: set[str] = set()
        self._incarnations: set[str] = set()
        self._containers: set[str] = set()
        self._config_names: set[str] = set()
        self._correlations: set[str] = set()
        self._revision = 0
        self.telemetry_rate = Rate()
        self.scheme = scheme
        self.tenant = Tenant(kept)
        self.authority = Authority(kept / "tls", (tls[0],) if tls is not None else ())
        self.prober = Prober()
        self.address = address
        self._places = [("wire", address, wire_port), ("plugin", address, plugin_port)]
        self._places += [("wire", other, wire_port) for other in also]
        if tls is not None:
            self._places.append(("storage", *tls))
        self.vm = VirtualMachine()
        self._listeners: list[Listener] = []
        self.come_back()
        self.wire_port, self.plugin_port = self._listeners[0].port, self._listeners[1].port
        self.tls_port = self._listeners[-1].port if tls is not None else 0
        self.storage = storage_host or f"{self._places[-1][1]}:{self.tls_port}"
        self.blobs = Blobs(self.storage)
        self.base = f"http://{address}:{self.wire_port}"
        self.change()

    def _listen(self, server: str, address: str, port: int) -> Listener:
        route = {
            "wire": lambda request: wireserver.answer(self, request),
            "plugin": lambda request: hostplugin.answer(self, request),
            "storage": lambda request: ("storage", storage.answer(self, request)),
        }[server]
        authority = self.authority if server == "storage" else None
        return Listener(server, address, port, route, self._fault_for, self._record, authority)

    def go_away(self) -> None:
        """Nothing listens any more: every connection is refused, until ``come_back``."""
        for listener in self._listeners:
            listener.close()
        self._places = [
            (server, address, listener.port)
            for (server, address, _), listener in zip(self._places, self._listeners)
        ]
        self._listeners = []

    def come_back(self) -> None:
        """Listen again on the same ports; nothing is forgotten."""
        if not self._listeners:
            self._listeners = [self._listen(*place) for place in self._places]

    def close(self) -> None:
        self.prober.stop()
        for listener in self._listeners:
            listener.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def __enter__(self) -> Fabric:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # what the platform wants

    def goal_state(self, **changes: Any) -> int:
        """Change fields of VirtualMachine and publish a new incarnation; its number."""
        return self.change(
            incarnation=changes.pop("incarnation", self.vm.incarnation + 1), **changes
        )

    def change(self, **changes: Any) -> int:
        """Change fields of VirtualMachine without a new incarnation (unless it is among them)."""
        with self._lock:
            made: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in changes.items()
            }
            self.vm = dataclasses.replace(self.vm, **made)
            self._issued.update(documents.document_targets(self.vm).values())
            self._issued.add(documents.remote_access_target(self.vm))
            self._incarnations.add(str(self.vm.incarnation))
            self._containers.add(self.vm.container_id)
            self._config_names.add(self.vm.config_name)
            self._keep_platform_blobs()
            return self.vm.incarnation

    def _keep_platform_blobs(self) -> None:
        """The manifests of agents, and the artifacts profile."""
        for family in self.vm.ga_families:
            manifest = documents.agent_manifest(family, AGENT_VERSIONS, self.blob_url)
            for path in documents.agent_manifest_paths(family):
                self.blobs.keep(path, manifest.encode())
        if self.vm.on_hold is not None:
            profile = {"profileId": "1", "onHold": self.vm.on_hold}
            self.blobs.keep(documents.PROFILE_PATH, json.dumps(profile).encode().ljust(512, b"\0"))

    def set_extensions(
        self, extensions: Sequence[Extension | Mapping[str, Any]], *, bump: bool = True
    ) -> int:
        """Want exactly these handlers (maps as of Extension.from_plain); packages and manifests
        become blobs. vmSettings says the same, source Fabric.
        """
        with self._lock:
            changes = {
                "extensions": self._published(extensions),
                "created_on_ticks": self._ticks(),
                "fast_track": None,
            }
            return self.goal_state(**changes) if bump else self.change(**changes)

    def set_fast_track(self, extensions: Sequence[Extension | Mapping[str, Any]]) -> int:
        """A FastTrack goal state: these handlers by vmSettings alone; the incarnation stays."""
        with self._lock:
            made = self._published(extensions)
            return self.change(fast_track=made, fast_track_ticks=self._ticks())

    def _published(
        self, extensions: Sequence[Extension | Mapping[str, Any]]
    ) -> tuple[Extension, ...]:
        made = []
        for item in extensions:
            extension = item if isinstance(item, Extension) else Extension.from_plain(item)
            if extension.signature == "make":
                signature = self.tenant.sign(extension.package)
                extension = dataclasses.replace(extension, signature=signature)
            manifest = documents.package_manifest(extension, (extension.version,), self.blob_url)
            for path in documents.manifest_paths(extension):
                self.blobs.keep(path, manifest.encode())
            if extension.package:
                self.blobs.keep(documents.package_path(extension), extension.package)
            made.append(extension)
        return tuple(made)

    def _ticks(self) -> int:
        """Of now: later than any before."""
        self._revision += 1
        return FIRST_TICKS + self._revision * TICKS_PER_S

    def set_remote_users(self, users: Sequence[RemoteUser | Mapping[str, str]] | None) -> int:
        """These just-in-time users and no others, by a new incarnation; None: the goal state has
        no RemoteAccessInfo.
        """
        made = None
        if users is not None:
            made = tuple(
                item if isinstance(item, RemoteUser) else RemoteUser(**item) for item in users
            )
        return self.goal_state(remote_users=made)

    def vanish(self, path: str) -> None:
        """Remove a blob; ``path`` starts with a slash, as in the blob's URL."""
        self.blobs.forget(path)

    def move_container(self) -> str:
        """A migration: another container id and config name, the incarnation stays; the old id is
        answered 410.
        """
        number = uuid.uuid4()
        self.change(
            container_id=str(number),
            config_name=self.vm.config_name.replace(".0.", f".{number.int % 90 + 10}.", 1),
        )
        return str(number)

    def miss_role_instance(self, times: int) -> None:
        """The next ``times`` goal states come without RoleInstance."""
        self._missing_instance = times

    def fault(
        self, target: str, kind: str, times: int | None = None, argument: float = 0.0
    ) -> None:
        """Spoil answers; see faults.TARGETS and faults.KINDS. Raises LabError for unknown words."""
        if target != "*" and target not in TARGETS:
            raise LabError(f"no fault target {target!r}", "fabric", "one of " + " ".join(TARGETS))
        if kind not in KINDS and not kind.startswith("status:"):
            raise LabError(
                f"no fault kind {kind!r}", "fabric", "one of status:CODE " + " ".join(KINDS)
            )
        if (kind in WRONG) != (target == "tls"):
            raise LabError(
                f"{kind} is no fault of {target}", "fabric", "tls takes " + " ".join(WRONG)
            )
        with self._lock:
            self._faults.append(Fault(target, kind, times, argument))

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    # what it received

    @property
    def recorded(self) -> list[Recorded]:
        with self._lock:
            return list(self._recorded)

    @property
    def health(self) -> list[dict[str, Any]]:
        """Health reports that were accepted: incarnation, container_id, instance_id, state,
        substatus, description, time.
        """
        with self._lock:
            return list(self._health)

    @property
    def properties(self) -> list[dict[str, str]]:
        """Role properties that were accepted, each a map of name to value."""
        with self._lock:
            return list(self._properties)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """Status documents, parsed, as the control plane reads them from the blob."""
        with self._lock:
            return list(self._statuses)

    @property
    def complaints(self) -> list[str]:
        """What a stricter platform would not have accepted."""
        with self._lock:
            return list(self._complaints)

    @property
    def telemetry(self) -> list[dict[str, Any]]:
        """Telemetry events that were accepted: provider, id, parameters, time."""
        with self._lock:
            return list(self._events)

    @property
    def observations(self) -> list[dict[str, Any]]:
        """What the health service was told: ObservationName, IsHealthy, Description, Value and
        time.
        """
        with self._lock:
            return list(self._observations)

    @property
    def agent_logs(self) -> list[str]:
        """The uploaded log bundles, zips in base64."""
        with self._lock:
            return list(self._agent_logs)

    def forget(self) -> None:
        """Empty the recorder."""
        with self._lock:
            self._keep_nothing()

    def _keep_nothing(self) -> None:
        self._recorded: list[Recorded] = []
        self._health: list[dict[str, Any]] = []
        self._properties: list[dict[str, str]] = []
        self._statuses: list[dict[str, Any]] = []
        self._complaints: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._observations: list[dict[str, Any]] = []
        self._agent_logs: list[str] = []

    # probes, from the platform's address

    def probe(self, address: str, port: int, timeout_s: float = 3.0) -> str:
        """What a probe of a load balancer gets; empty when nobody answers."""
        return self.prober.once(address, port, self.address, timeout_s)

    def start_probing(self, address: str, port: int, period_s: float = 0.5) -> None:
        self.prober.start(address, port, self.address, period_s)

    def probing(self) -> dict[str, Any]:
        """Of the probing: answered, failed, longest_gap_s (between two answers)."""
        return self.prober.report()

    # for the routers

    def blob_url(self, path: str) -> str:
        """The URL of a blob of this platform."""
        return documents.blob_url(path, self.scheme, self.storage)

    def is_storage(self, request: Request) -> bool:
        """Whether a request to port 80 is one to storage."""
        host = request.headers.get("host", "")
        return self.storage in (host, host.partition(":")[0])

    def was_issued(self, target: str) -> bool:
        """Whether a goal state, now or before, named this request target."""
        with self._lock:
            return target in self._issued

    def had_incarnation(self, text: str) -> bool:
        with self._lock:
            return text in self._incarnations

    def had_container(self, text: str) -> bool:
        with self._lock:
            return text in self._containers

    def had_config_name(self, text: str) -> bool:
        with self._lock:
            return text in self._config_names

    def is_new_correlation(self, text: str) -> bool:
        """Whether this x-ms-client-correlationid comes for the first time."""
        with self._lock:
            is_new = text not in self._correlations
            self._correlations.add(text)
            return is_new

    def vm_now(self) -> VirtualMachine:
        with self._lock:
            if self._missing_instance > 0:
                self._missing_instance -= 1
                return dataclasses.replace(self.vm, with_role_instance=False)
            return self.vm

    def protect(self, settings: Any) -> tuple[str, str]:
        key = json.dumps(settings, sort_keys=True)
        with self._lock:
            if key not in self._protected:
                self._protected[key] = (self.tenant.protect(settings), self.tenant.thumbprint)
            return self._protected[key]

    def complain(self, text: str) -> None:
        with self._lock:
            self._complaints.append(text)

    def keep_health(self, report: dict[str, Any]) -> None:
        with self._lock:
            self._health.append({**report, "time": time.time()})

    def keep_properties(self, properties: dict[str, str]) -> None:
        with self._lock:
            self._properties.append(properties)

    def keep_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        with self._lock:
            self._events += [{**event, "time": time.time()} for event in events]
            del self._events[:-RECORDED_LIMIT]

    def keep_observations(self, observations: Sequence[Mapping[str, Any]]) -> None:
        with self._lock:
            self._observations += [{**item, "time": time.time()} for item in observations]
            del self._observations[:-RECORDED_LIMIT]

    def keep_agent_log(self, content: bytes) -> None:
        with self._lock:
            self._agent_logs.append(base64.b64encode(content).decode())
            del self._agent_logs[:-AGENT_LOGS_LIMIT]

    def keep_status(self, path: str, channel: str, kind: str) -> None:
        document = document_in(self.blobs.content(path))
        if document is not None and path == documents.STATUS_PATH:
            with self._lock:
                self._statuses.append(
                    {**document, "lab": {"channel": channel, "kind": kind, "time": time.time()}}
                )
                del self._statuses[:-500]

    def _record(self, item: Recorded) -> None:
        with self._lock:
            self._recorded.append(item)
            del self._recorded[:-RECORDED_LIMIT]

    def _fault_for(self, target: str) -> Fault | None:
        with self._lock:
            for position, fault in enumerate(self._faults):
                if fault.target == target or (fault.target == "*" and target != "tls"):
                    if fault.times is not None:
                        left = fault.times - 1
                        self._faults[position : position + 1] = (
                            [dataclasses.replace(fault, times=left)] if left else []
                        )
                    return fault
        return None
