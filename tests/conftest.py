"""What all tests share: how far hypothesis looks, and what some of them need."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from waagent.supervisor.commands.about import unreadable_for_workers

# other programs slow us down, too; and whole lives of workers are long inputs on purpose
_ANY_PACE: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("waagent", derandomize=True, **_ANY_PACE)
settings.register_profile("far", max_examples=2000, **_ANY_PACE)
settings.load_profile("waagent")


@pytest.fixture
def readable_python() -> None:
    """Skips where this interpreter lies in a folder that other users cannot enter: nothing can run
    it under another uid.
    """
    obstacle = unreadable_for_workers()
    if obstacle is not None:
        pytest.skip(f"another uid cannot run this Python: {obstacle.folder}: {obstacle.problem}")


@pytest.fixture
def shown(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """``shown(text)``: a measured figure that belongs into the output of every run, also of one
    with many runners.
    """
    return lambda text: record_property("shown", text)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Measured figures, and for tests/run_all the failures, which it prints last."""
    _tell_figures(terminalreporter)
    path = os.environ.get("WAAGENT_FAILURES")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            for report in (
                *terminalreporter.stats.get("failed", ()),
                *terminalreporter.stats.get("error", ()),
            ):
                file.write(json.dumps(_failure(report)) + "\n")


def _failure(report: Any) -> dict[str, Any]:
    """The name of a failed test and what it printed, the reason last."""
    printed = [line for _, text in report.sections for line in text.splitlines()]
    when = getattr(report, "when", None) or "collect"
    name = report.nodeid if when == "call" else f"{report.nodeid} ({when})"
    return {"name": name, "tail": [*printed, *report.longreprtext.splitlines()]}


def _tell_figures(terminalreporter: Any) -> None:
    reports = [
        report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())
    ]
    lines = [
        text
        for report in reports
        if report.when == "call"
        for name, text in report.user_properties
        if name == "shown"
    ]
    if lines:
        terminalreporter.section("measured")
        for line in sorted(set(lines)):
            terminalreporter.write_line(line)
