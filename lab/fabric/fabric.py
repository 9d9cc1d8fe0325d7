"""The emulated platform in this process: start it, give it a goal state, switch faults, look at
what it received.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waagent.lab.fabric import answers, documents
from waagent.lab.fabric.blobs import Blobs, document_in
from waagent.lab.fabric.crypto import Tenant
from waagent.lab.fabric.faults import KINDS, TARGETS, Fault
from waagent.lab.fabric.http import Listener
from waagent.lab.fabric.probing import Prober
from waagent.lab.fabric.values import (
    PLUGIN_PORT,
    WIRE_PORT,
    Extension,
    LabError,
    Recorded,
    VirtualMachine,
)
from waagent.lab.fabric.watching import Watching

RECORDED_LIMIT = 20_000


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
    ) -> None:
        """``folder`` keeps the tenant certificate (default: a temporary one); ``also`` names
        further addresses for port 80.
        """
        self._scratch = (
            None if folder is not None else tempfile.TemporaryDirectory(prefix="waagent-fabric-")
        )
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._missing_instance = 0
        self._protected: dict[str, tuple[str, str]] = {}
        self._recorded: list[Recorded] = []
        self._health: list[dict[str, Any]] = []
        self._properties: list[dict[str, str]] = []
        self._statuses: list[dict[str, Any]] = []
        self._complaints: list[str] = []
        self.vm = VirtualMachine()
        self.blobs = Blobs()
        self.scheme = scheme
        self.tenant = Tenant(folder if folder is not None else Path(self._scratch.name))  # type: ignore[union-attr]  # one of them is there
        self.prober = Prober()
        self.address = address
        self._listeners = [
            self._listen("wire", address, wire_port),
            self._listen("plugin", address, plugin_port),
        ]
        self._listeners += [self._listen("wire", other, wire_port) for other in also]
        self.wire_port, self.plugin_port = self._listeners[0].port, self._listeners[1].port
        self.base = f"http://{address}:{self.wire_port}"

    def _listen(self, server: str, address: str, port: int) -> Listener:
        answer = answers.plugin if server == "plugin" else answers.wire
        return Listener(
            server,
            address,
            port,
            lambda request: answer(self, request),
            self._fault_for,
            self._record,
        )

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
            return self.vm.incarnation

    def set_extensions(
        self, extensions: Sequence[Extension | Mapping[str, Any]], *, bump: bool = True
    ) -> int:
        """Want exactly these handlers (maps as of Extension.from_plain); packages and manifests
        become blobs.
        """
        made = tuple(
            item if isinstance(item, Extension) else Extension.from_plain(item)
            for item in extensions
        )
        with self._lock:
            for extension in made:
                manifest = documents.package_manifest(extension, (extension.version,), self.scheme)
                self.blobs.keep(documents.manifest_path(extension), manifest.encode())
                if extension.package:
                    self.blobs.keep(documents.package_path(extension), extension.package)
            return self.goal_state(extensions=made) if bump else self.change(extensions=made)

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

    def forget(self) -> None:
        """Empty the recorder."""
        with self._lock:
            for kept in (
                self._recorded,
                self._health,
                self._properties,
                self._statuses,
                self._complaints,
            ):
                kept.clear()

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
                if fault.target in ("*", target):
                    if fault.times is not None:
                        left = fault.times - 1
                        self._faults[position : position + 1] = (
                            [dataclasses.replace(fault, times=left)] if left else []
                        )
                    return fault
        return None
