"""Tells fabric_client what is to be reported: each extension on change, all again to a new
server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.bus import topics
from waagent.protocol.bus.bus_errors import EnvelopeError
from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.handler.handler_errors import UNKNOWN
from waagent.protocol.handler.status_file import ExtensionStatus

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

ASK_S = 10.0
AGAIN_S = 2.0
GONE = "Gone"
MESSAGE_LIMIT = 512

Key = tuple[str, str]


def _unsendable(report: ExtensionReport, reason: str) -> str | None:
    """In place of a status that the bus does not take; None when it was this one."""
    text = f"the status of {report.extension or report.handler} cannot be sent: {reason}"
    name = report.extension or report.handler
    made = ExtensionStatus("error", UNKNOWN, text[:MESSAGE_LIMIT]).to_json(name)
    return made if made != report.status else None


class Reporter:
    """Invariant: of each extension at most one report is on its way, and the last one said is the
    newest wanted.
    """

    def __init__(self, worker: Worker, client: Any) -> None:
        self._worker, self._client = worker, client
        self._wanted: dict[Key, ExtensionReport] = {}
        self._taken: dict[Key, ExtensionReport] = {}
        self._asking: set[Key] = set()
        client.on_new_server(self._say_all_again)

    def say(self, reports: Iterable[ExtensionReport]) -> None:
        """This is all there is to report; what was reported before and is not among it is gone."""
        wanted = {(report.handler, report.extension): report for report in reports}
        for key, report in self._wanted.items():
            if key not in wanted:
                wanted[key] = report._replace(handler_status=GONE, status=None)
        self._wanted = wanted
        for key in wanted:
            self._send(key)

    def _say_all_again(self) -> None:
        self._taken.clear()
        for key in list(self._wanted):
            self._send(key)

    def _send(self, key: Key) -> None:
        report = self._wanted.get(key)
        if report is None or key in self._asking or self._taken.get(key) == report:
            return
        self._asking.add(key)

        def done(body: Mapping[str, Any] | None, problem: str) -> None:
            self._asking.discard(key)
            if body is None:
                self._worker.log.debug("report is said again handler=%s reason=%r", key[0], problem)
                self._worker.loop.after(AGAIN_S, lambda: self._send(key))
                return
            self._taken[key] = report
            if report.handler_status == GONE and self._wanted.get(key) == report:
                del self._wanted[key], self._taken[key]
            self._send(key)

        body = topics.to_body(report)
        try:
            self._client.ask(topics.STATUS, body, deadline_s=ASK_S, done=done)
        except EnvelopeError as error:
            self._worker.log.error("report is not sent handler=%s reason=%r", key[0], str(error))
            self._asking.discard(key)
            if report.status is not None:  # at least the handler's own part
                self._wanted[key] = report._replace(status=_unsendable(report, str(error)))
                self._send(key)
