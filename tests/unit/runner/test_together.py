"""All statuses together: what does not fit is cut by name, and the small ones are left alone."""

from __future__ import annotations

import json

from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.handler.status_file import parse_status
from waagent.workers.extension_runner.together import LEFT_OUT, TOTAL_LIMIT_BYTES, fit_together


def a_report(number: int, substatus: int) -> ExtensionReport:
    part = {
        "name": "part",
        "status": "success",
        "code": 0,
        "formattedMessage": {"lang": "en-US", "message": "\u0416" * 20},
    }
    body = {
        "status": "success",
        "code": 0,
        "operation": "Enable",
        "formattedMessage": {"lang": "en-US", "message": "m"},
        "substatus": [part] * substatus,
    }
    data = json.dumps([{"version": 1.0, "timestampUTC": "t", "status": body}]).encode()
    name = f"Contoso.N{number}"
    return ExtensionReport(name, "1.0", "Ready", 0, "", "", 0, parse_status(data).to_json(name))


def size(reports: tuple[ExtensionReport, ...]) -> int:
    return sum(len((report.status or "").encode()) for report in reports)


def test_60_extensions_of_1400_substatus_fit_and_each_says_what_is_left_out() -> None:
    reports = tuple(a_report(number, 1400) for number in range(60))
    assert size(reports) > 4 * TOTAL_LIMIT_BYTES

    fitting, made = fit_together(reports, {})

    assert size(fitting) <= TOTAL_LIMIT_BYTES
    for report in fitting:
        status = json.loads(report.status or "")
        assert status["status"] == "success" and status["substatus"][-1]["name"] == LEFT_OUT
    assert fit_together(reports, made) == (fitting, made)


def test_small_ones_keep_all_and_what_they_leave_goes_to_the_large_one() -> None:
    reports = (*(a_report(number, 2) for number in range(20)), a_report(99, 1400))

    assert fit_together(reports, {}) == (reports, {})
