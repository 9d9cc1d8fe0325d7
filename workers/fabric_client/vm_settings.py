"""vmSettings: asked from the HostGAPlugin with each poll, by ETag, and read by transfer when they
changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waagent.protocol.wire import constants, headers, host_plugin
from waagent.workers.fabric_client.http_exchange import Outcome
from waagent.workers.fabric_client.transfer_process import Frame, Transfer

if TYPE_CHECKING:
    from waagent.workers.fabric_client.endpoint import Link
    from waagent.workers.runtime import Worker

UNSUPPORTED_S = 6 * 3600.0  # a host that has no vmSettings may be updated under us
READ_DEADLINE_S = 60.0
AFTER_FAULT_S = 30.0  # a host that fails is not asked with every poll

UNCHANGED, CHANGED, STALE, FAILED, ABSENT = "unchanged", "changed", "stale", "failed", "absent"
"""How a question ended. STALE: the host knows our container no longer; ABSENT: it has no
vmSettings."""

Done = Callable[[str, "Frame | None"], None]


class VmSettings:
    """Invariant: ``done`` of each `ask` is called once; what could not be read is not read again
    while its ETag is the same.
    """

    def __init__(self, worker: Worker, link: Link, transfer: Transfer) -> None:
        self._worker, self._link, self._transfer = worker, link, transfer
        self._etag = ""
        self._not_before = 0.0
        self.is_supported = False
        """Whether the host has answered with vmSettings."""

    def forget(self) -> None:
        """Ask for the whole document next."""
        self._etag, self._not_before = "", 0.0

    def ask(self, ids: dict[str, Any], done: Done) -> None:
        """Once; at once ABSENT while it is known that there are none."""
        if self._worker.loop.now() < self._not_before:
            done(UNCHANGED if self.is_supported else ABSENT, None)
            return
        asked = headers.vm_settings_headers(ids["container_id"], ids["config_name"], self._etag)

        def comes(outcome: Outcome) -> None:
            self._comes(outcome, done)

        self._link.hostplugin(
            "GET",
            constants.VM_SETTINGS_PATH,
            asked,
            "GET /vmSettings",
            comes,
            limit_bytes=constants.EXTENSIONS_LIMIT_BYTES,
        )

    def _comes(self, outcome: Outcome, done: Done) -> None:
        answer = outcome.answer
        if answer is not None and answer.status == 304 and self._etag:
            self._faults_over()
            done(UNCHANGED, None)
        elif answer is not None and answer.status == 404:
            self._unsupported(done)
        elif answer is not None and host_plugin.is_stale(answer.status, answer.body):
            done(STALE, None)
        elif answer is None or answer.status != 200 or not answer.headers.get("etag"):
            reason = outcome.error
            if answer is not None:
                reason = f"status {answer.status}" if answer.status != 200 else "no ETag"
            self._failed(reason, done)
        else:
            self._read(answer.body, answer.headers["etag"][:256], done)

    def _read(self, body: bytes, etag: str, done: Done) -> None:
        frames: list[Frame] = []

        def end(error: str) -> None:
            found = next((frame for frame in frames if frame.get("kind") == "extensions"), None)
            refused = next((frame for frame in frames if frame.get("kind") == "failed"), None)
            if found is not None:
                self._etag, self.is_supported = etag, True
                self._faults_over()
                done(CHANGED, found)
            elif refused is not None and refused.get("is_unsupported"):
                self._unsupported(done)
            else:
                if refused is not None:
                    self._etag = etag
                self._failed(error or str((refused or {}).get("text"))[:300], done)

        job = {"operation": "vm_settings", "body": body, "etag": etag}
        self._transfer.run(job, deadline_s=READ_DEADLINE_S, on_frame=frames.append, on_end=end)

    def _unsupported(self, done: Done) -> None:
        if self.is_supported:
            self._worker.log.info("the host has no vmSettings any more")
        self.is_supported, self._etag = False, ""
        self._not_before = self._worker.loop.now() + UNSUPPORTED_S
        done(ABSENT, None)

    def _failed(self, reason: str, done: Done) -> None:
        self._not_before = self._worker.loop.now() + AFTER_FAULT_S
        self._worker.faults.seen(
            "vmSettings",
            f"vmSettings cannot be used ({reason}): HostGAPlugin: none needed, asked again within"
            f" {AFTER_FAULT_S:g} s; the WireServer's goal state is followed meanwhile",
        )
        done(FAILED, None)

    def _faults_over(self) -> None:
        self._worker.faults.ended("vmSettings", "vmSettings are read again")
