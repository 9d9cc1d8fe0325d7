"""From `name, version` to a handler's folder: asks fabric_client for the package, has it unpacked,
tries again for ten minutes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.distro.paths import Paths
from waagent.protocol.base import records
from waagent.protocol.base.backoff import doubled_pause_s
from waagent.protocol.bus import topics
from waagent.protocol.handler import handler_errors, handler_names
from waagent.workers.extension_runner.file_processes import FileProcesses
from waagent.workers.extension_runner.unpack_job import Bounds, Job

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

ASK_S = 120.0
UNPACK_S = 600.0
PATIENCE_S = 600.0  # within one goal state, then the failure is final (spec: extensions §3.6)
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
FINAL_CODES = (
    handler_errors.MANIFEST_MISSING,
    handler_errors.MANIFEST_INVALID,
    handler_errors.PACKAGE_INVALID,
    handler_errors.INSTALL_FAILED,
    handler_errors.UNKNOWN,
)
_CODE = re.compile(r"\s*(-1|1[0-9]{3})\b[:\s]*")

Done = Callable[[int, str, Mapping[str, Any]], None]
"""Gets code (0: the folder is there), text, the unpacker's answer."""


class Fetch:
    """One package on its way. Invariant: ``done`` is called once, unless `cancel` was called
    before.
    """

    def __init__(
        self,
        worker: Worker,
        client: Any,
        file_processes: FileProcesses,
        paths: Paths,
        name: str,
        version: str,
        done: Done,
        *,
        guarded: Callable[[Callable[[], None]], None],
    ) -> None:
        """``guarded`` makes every call that comes from outside."""
        self._worker, self._client, self._done, self._guarded = worker, client, done, guarded
        self._files = file_processes
        self._paths, self._name, self._version = paths, name, version
        self._until: float | None = None
        self._failed_tries = 0
        self._is_cancelled = self._is_unpacking = False
        self.note = "downloading"
        """What it does now, for status and `waagent-ps`."""

    def start(self, now: Callable[[], float]) -> None:
        """Begin; the first failure that counts as final is PATIENCE_S away."""
        self._now = now
        self._until = now() + PATIENCE_S
        self._files.prepare()
        self._ask()

    def cancel(self) -> bool:
        """Nobody wants it any more. False while it unpacks: that ends soon, and its folder must not
        have two writers.
        """
        self._is_cancelled = not self._is_unpacking
        return self._is_cancelled

    def _ask(self) -> None:
        if not self._is_cancelled:
            self._client.ask(
                topics.PACKAGE,
                {"name": self._name, "version": self._version},
                deadline_s=ASK_S,
                done=lambda body, problem: self._guarded(lambda: self._answered(body, problem)),
            )

    def _answered(self, body: Mapping[str, Any] | None, problem: str) -> None:
        if self._is_cancelled:
            return
        if body is None:
            self._failed(*_code_of(problem))
            return
        try:
            package = topics.from_body(topics.PackageFile, body)
        except topics.BodyError as error:
            self._failed(
                handler_errors.PACKAGE_DOWNLOAD,
                f"fabric_client's answer is not understood: {error}",
            )
            return
        if "/" in package.file or package.file in ("", ".", ".."):
            self._failed(handler_errors.PACKAGE_DOWNLOAD, "fabric_client named a path, not a file")
            return
        self.note = "unpacking"
        self._is_unpacking = True
        paths, folder = self._paths, handler_names.folder_name(self._name, self._version)
        job = Job(
            str(paths.cache),
            package.file,
            package.size_bytes,
            package.sha256,
            str(paths.operations / f"staging-{folder}"),
            str(paths.library / folder),
            Bounds(),
        )
        self._files.run(
            {"kind": "unpack", **records.to_map(job)},
            deadline_s=UNPACK_S,
            done=lambda answer, reason: self._guarded(lambda: self._unpacked(answer, reason)),
        )

    def _unpacked(self, answer: Any, reason: str) -> None:
        self._is_unpacking = False
        if answer is None:
            answer = {"error": f"unpacking {reason}", "code": handler_errors.PACKAGE_INVALID}
        if "error" in answer:
            self._failed(answer["code"], answer["error"], is_final=not answer.get("again", False))
            return
        self._done(handler_errors.OK, "", answer)

    def _failed(self, code: int, text: str, *, is_final: bool = True) -> None:
        assert self._until is not None
        self._failed_tries += 1
        pause_s = doubled_pause_s(self._failed_tries, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        if (is_final and code in FINAL_CODES) or self._now() + pause_s > self._until:
            self._done(
                code,
                f"Failed to download artifacts: {text}"
                if code != handler_errors.PACKAGE_INVALID
                else text,
                {},
            )
            return
        self.note = f"downloading, next try in {pause_s:g} s: {text[:200]}"
        self._worker.log.warning(
            "package not there yet handler=%s version=%s code=%d reason=%r",
            self._name,
            self._version,
            code,
            text[:200],
        )
        self._worker.loop.after(pause_s, lambda: self._guarded(self._ask))


def _code_of(problem: str) -> tuple[int, str]:
    """`1001: text` -> (1001, text); a text without a code is a failed download."""
    match = _CODE.match(problem)
    if match is None:
        return handler_errors.PACKAGE_DOWNLOAD, problem
    return int(match.group(1)), problem[match.end() :]
