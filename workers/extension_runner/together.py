"""All statuses together fit into what the platform takes; each alone was bounded before. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.handler.status_file import LANG

TOTAL_LIMIT_BYTES = 768 * 1024  # of the status document's 1 MiB
LEFT_OUT = "waagent: substatus left out"


def fit_together(
    reports: Iterable[ExtensionReport], known: Mapping[tuple[str, int], str]
) -> tuple[tuple[ExtensionReport, ...], dict[tuple[str, int], str]]:
    """The reports, with those cut that take more than their share when all do not fit; and what was
    made of each text and share, so that it is not made again (``known`` is that of the last time).
    """
    listed = tuple(reports)
    sizes = sorted(len((one.status or "").encode("utf-8", "replace")) for one in listed)
    share = _share(sizes)
    made: dict[tuple[str, int], str] = {}
    fitting = []
    for report in listed:
        text = report.status or ""
        if len(text.encode("utf-8", "replace")) > share:
            key = (text, share)
            made[key] = known.get(key) or _cut(text, share)
            report = report._replace(status=made[key])
        fitting.append(report)
    return tuple(fitting), made


def _share(sizes: list[int]) -> int:
    """So much each may have: what small ones leave over goes to the large ones."""
    left = TOTAL_LIMIT_BYTES
    for position, size in enumerate(sizes):
        share = left // (len(sizes) - position)
        if size > share:
            return share
        left -= size
    return TOTAL_LIMIT_BYTES


def _cut(text: str, share: int) -> str:
    """Substatus go, the last ones first, and one says how many; the rest is at most 132 KiB."""
    status = json.loads(text)
    parts = status.get("substatus") or []
    kept = parts
    while True:
        status["substatus"] = [*kept, _left_out(len(parts) - len(kept))]
        cut = json.dumps(status, ensure_ascii=False)
        if len(cut.encode("utf-8", "replace")) <= share or not kept:
            return cut
        kept = kept[: len(kept) // 2]


def _left_out(count: int) -> dict[str, object]:
    message = f"{count} more: the statuses of all extensions together are too large"
    return {
        "name": LEFT_OUT,
        "status": "warning",
        "code": 0,
        "formattedMessage": {"lang": LANG, "message": message},
    }
