"""What is kept of the reports: all of it, as long as all of it together is small enough."""

from __future__ import annotations

import json
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from waagent.protocol.base.log import Log
from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.wire.status_blob import Machine, status_document
from waagent.workers.fabric_client.reports import TOTAL_LIMIT_BYTES, Reports

MIB = 1024 * 1024
MACHINE = Machine("3.0.0", "vm1", "debian", "12")


def a_report(name: str, substatus: int, size: int = 60) -> ExtensionReport:
    items = [
        {"name": f"s{number}", "status": "success", "formattedMessage": {"message": "x" * size}}
        for number in range(substatus)
    ]
    status = {"status": "success", "formattedMessage": {"message": "ok"}, "substatus": items}
    return ExtensionReport(name, "1.0", "Ready", 0, "enabled", "", 1, json.dumps(status))


def reports(lines: list[str] | None = None) -> Reports:
    class Lines(Log):
        def warning(self, text: str, *values: object) -> None:
            if lines is not None:
                lines.append(text % values if values else text)

    return Reports(Faults(Lines("t"), lambda: 0.0))


def document(kept: Reports) -> dict:
    encoded = status_document(MACHINE, "2026-06-05T12:00:00Z", "m", kept.all({}), None)
    return json.loads(encoded)


def test_sixty_extensions_with_1400_substatus_each_cost_less_than_the_worker_has() -> None:
    lines: list[str] = []
    kept = reports(lines)
    tracemalloc.start()

    for number in range(60):
        kept.take(a_report(f"Contoso.Handler{number}", 1400))
    encoded = status_document(MACHINE, "2026-06-05T12:00:00Z", "m", kept.all({}), None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    handlers = json.loads(encoded)["aggregateStatus"]["handlerAggregateStatus"]
    assert len(handlers) == 60
    assert len(encoded) < TOTAL_LIMIT_BYTES + MIB
    assert peak < 24 * MIB, f"{peak / MIB:.1f} MiB"
    assert any("substatus left out handler='Contoso.Handler" in line for line in lines)


def test_only_the_longest_lose_their_lists_and_say_so() -> None:
    kept = reports()
    kept.take(a_report("C.Small", 3))
    for number in range(20):
        kept.take(a_report(f"C.Big{number}", 1400, 100))

    found = {
        item["handlerName"]: item["runtimeSettingsStatus"]["settingsStatus"]["status"]
        for item in document(kept)["aggregateStatus"]["handlerAggregateStatus"]
    }
    assert len(found["C.Small"]["substatus"]) == 3
    cut = [status for status in found.values() if "substatus" not in status]
    assert cut and all("left out" in status["formattedMessage"]["message"] for status in cut)


def test_a_report_that_was_cut_is_no_news_when_it_comes_again() -> None:
    kept = reports()
    for number in range(20):
        kept.take(a_report(f"C.Big{number}", 1400, 100))

    again = [kept.take(a_report(f"C.Big{number}", 1400, 100)) for number in range(20)]

    assert sum(report is not None for report in again) <= 10


def test_what_is_no_status_is_that_extensions_error() -> None:
    kept = reports()
    kept.take(a_report("C.A", 0))
    for text in ("not json", "[1]", '{"a": NaN}', "[" * 100_000):
        kept.take(a_report("C.B", 0)._replace(status=text))

        statuses = [
            item["runtimeSettingsStatus"]["settingsStatus"]["status"]["status"]
            for item in document(kept)["aggregateStatus"]["handlerAggregateStatus"]
        ]
        assert statuses == ["success", "error"], text[:20]


def test_words_alone_can_be_too_many_as_well() -> None:
    kept = reports()

    for number in range(2100):
        report = a_report(f"C.H{number}", 0)
        kept.take(report._replace(handler_message="\u044f" * 4096))

    size = len(status_document(MACHINE, "2026-06-05T12:00:00Z", "m", kept.all({}), None))
    assert size < TOTAL_LIMIT_BYTES * 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1500), st.integers(0, 4000)), max_size=60)
)
def test_whatever_is_told_the_total_holds(told: list[tuple[int, int, int]]) -> None:
    kept = reports()

    for number, substatus, message in told:
        report = a_report(f"C.H{number}", substatus)
        kept.take(report._replace(handler_message="\u044f" * message))

    size = len(status_document(MACHINE, "2026-06-05T12:00:00Z", "m", kept.all({}), None))
    assert size < TOTAL_LIMIT_BYTES + 2 * MIB
