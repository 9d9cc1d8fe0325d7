"""What the workers reported of extensions: kept whole as long as all of it together is small
enough, else the longest lists are left out, by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus.topics import ExtensionReport, HandlerGoal
from waagent.protocol.wire import status_blob

REPORTS_LIMIT = 2048
TOTAL_LIMIT_BYTES = 3 * 1024 * 1024
"""Of all texts together. The document of them is held several times while it is sent, in a process
of 64 MiB.
"""
SHORT_BYTES = 1024
WAITING = "waiting to start"
LEFT_OUT = " ... [substatus left out: all reports together are too long]"

Key = tuple[str, str]


class Reports:
    """Invariant: at most REPORTS_LIMIT reports of TOTAL_LIMIT_BYTES; what is kept is a status that
    can stand in the document as it is.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._reports: dict[Key, ExtensionReport] = {}
        self._total_bytes = 0

    def take(self, report: ExtensionReport) -> ExtensionReport | None:
        """Keep one, `Gone` removes it; the report as it is kept when that is something new, else
        None.
        """
        key = (report.handler.lower(), report.extension.lower())
        before = self._reports.get(key)
        if report.handler_status == "Gone":
            self._put(key, None)
            return report if before is not None else None
        if before is None and len(self._reports) >= REPORTS_LIMIT:
            self._faults.seen(
                "reports",
                f"report refused handler={report.handler!r}: there are {REPORTS_LIMIT} already:"
                " status: remove extensions",
            )
            return None
        report = status_blob.checked_report(report)
        if before is not None and _is_cut_of(before, report):
            return None
        self._put(key, report)
        while self._total_bytes > TOTAL_LIMIT_BYTES and self._cut_longest():
            pass
        return report if self._reports.get(key) != before else None

    def all(self, handlers: Mapping[str, HandlerGoal]) -> list[ExtensionReport]:
        """What was reported, and for each wanted handler of which nothing is known yet that it
        waits.
        """
        known = {handler for handler, _ in self._reports}
        waiting = [
            report
            for key, goal in handlers.items()
            if key not in known and goal.state != "uninstall"
            for report in _waiting(goal)
        ]
        return [*self._reports.values(), *waiting]

    def _put(self, key: Key, report: ExtensionReport | None) -> None:
        before = self._reports.pop(key, None)
        if before is not None:
            self._total_bytes -= _size_bytes(before)
        if report is not None:
            self._reports[key] = report
            self._total_bytes += _size_bytes(report)

    def _cut_longest(self) -> bool:
        """Leave the list out of the longest status that has one, else shorten the longest report;
        False when nothing can be made shorter.
        """
        for key in sorted(self._reports, key=lambda one: -_size_bytes(self._reports[one])):
            report = self._reports[key]
            cut = _without_substatus(report)
            if cut is not None:
                self._put(key, cut)
                self._faults.seen(
                    f"cut {key}",
                    f"substatus left out handler={report.handler!r} extension="
                    f"{report.extension!r}: all reports together exceed {TOTAL_LIMIT_BYTES} bytes:"
                    " status: the handler should report less",
                )
                return True
        longest = max(self._reports, key=lambda one: _size_bytes(self._reports[one]))
        before = self._reports[longest]
        self._put(longest, _shortened(before))
        return _size_bytes(self._reports[longest]) < _size_bytes(before)


def _waiting(goal: HandlerGoal) -> list[ExtensionReport]:
    """Of each of its extensions, and of the handler alone when it has none."""
    alone = ExtensionReport(goal.name, goal.version, "NotReady", 0, WAITING)
    if goal.state != "enabled":
        return [alone]
    status = {"status": "transitioning", "code": 0, "operation": "Enable"}
    formatted = {"lang": "en-US", "message": WAITING}
    return [
        alone._replace(
            extension=one.name if goal.multi_config else "",
            sequence=one.sequence,
            status=json.dumps(
                {
                    "name": one.name if goal.multi_config else goal.name,
                    "configurationAppliedTime": None,
                    **status,
                    "formattedMessage": formatted,
                }
            ),
        )
        for one in goal.extensions
        if not (goal.multi_config and one.state == "disabled")
    ] or [alone]


def _size_bytes(report: ExtensionReport) -> int:
    return len(report.status or "") + 4 * len(report.handler_message) + 512


def _without_substatus(report: ExtensionReport) -> ExtensionReport | None:
    if report.status is None or '"substatus"' not in report.status:
        return None
    status = json.loads(report.status)
    if not status.pop("substatus", None):
        return None
    formatted = status.get("formattedMessage")
    if isinstance(formatted, dict):
        formatted["message"] = str(formatted.get("message") or "")[:1024] + LEFT_OUT
    return report._replace(status=json.dumps(status))


def _shortened(report: ExtensionReport) -> ExtensionReport:
    """Its words cut; a status that is long in another way becomes an error that says so."""
    told = report._replace(handler_message=report.handler_message[:256])
    if report.status is None or len(report.status) <= SHORT_BYTES:
        return told
    error = {"status": "error", "code": -1, "operation": None, "configurationAppliedTime": None}
    message = {"lang": "en-US", "message": "the status is too long to be kept" + LEFT_OUT}
    status = json.dumps({"name": report.handler, **error, "formattedMessage": message})
    return told._replace(status=status)


def _is_cut_of(kept: ExtensionReport, report: ExtensionReport) -> bool:
    """Whether ``report`` says again what was kept without its list."""
    if kept == report:
        return True
    return (
        kept.status is not None
        and LEFT_OUT[1:20] in kept.status
        and _without_substatus(report) == kept
    )
