"""The status blob: what was reported is kept, and all of it is stored soon after something in it
has changed, and once a period; HostGAPlugin first, then directly.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from waagent.distro.os_release import read_os_release
from waagent.protocol import state_table
from waagent.protocol.bus.topics import ExtensionReport
from waagent.protocol.wire import blob_requests, constants, headers, host_plugin, status_blob
from waagent.protocol.wire.urls import without_query
from waagent.workers.fabric_client import channels
from waagent.workers.fabric_client.endpoint import Link
from waagent.workers.fabric_client.http_exchange import Outcome
from waagent.workers.fabric_client.reporting_vm import describe
from waagent.workers.fabric_client.reports import Reports
from waagent.workers.fabric_client.transfer_process import Frame, Transfer

if TYPE_CHECKING:
    from waagent.workers.fabric_client.goal_state import Goal
    from waagent.workers.loop import Timer
    from waagent.workers.runtime import Worker

RUNNING = "Guest Agent is running"
CHANGE_S = 0.2  # what changes together is stored together
PATIENCE_S = 1.0  # for anything but a result, which may come before anybody has read it
APART_S = 1.0  # between two documents that a change asked for
DIRECT_DEADLINE_S = 60.0
DIRECT_PAUSE_S = 60.0  # a direct PUT costs TLS; the host is asked each time
HOST_DEADLINE_S = 15.0  # it may accept the connection and never answer


def now_text() -> str:
    """UTC as the platform writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def is_settled(reports: Iterable[ExtensionReport]) -> bool:
    """Whether every extension, and every handler without settings, has said its last word."""
    for report in reports:
        if report.status is None:
            if report.handler_status in ("NotReady", "Installing") and not report.handler_code:
                if report.handler_message != "Plugin disabled":
                    return False
        elif not is_result(report):
            return False
    return True


def is_result(report: ExtensionReport) -> bool:
    """Whether it says how something ended, well or badly; not that it waits, works or is gone."""
    if report.handler_status not in ("Ready", "Unresponsive") and report.handler_code == 0:
        return False
    try:
        status = json.loads(report.status) if report.status is not None else {}
    except ValueError:
        return True
    return not (isinstance(status, dict) and status.get("status") == "transitioning")


class Status:
    """Invariant: at most one upload is under way; a report that was taken is in every document
    until it is `Gone`.
    """

    def __init__(
        self,
        worker: Worker,
        link: Link,
        transfer: Transfer,
        goal: Goal,
        ways: channels.Channels,
        proxies: Callable[[], dict[str, str]],
    ) -> None:
        self._worker, self._link, self._transfer, self._faults = (
            worker,
            link,
            transfer,
            worker.faults,
        )
        self._goal, self._channels, self._proxies = goal, ways, proxies
        self._reports = Reports(worker.faults)
        self._is_under_way = False
        self._change: Timer | None = None
        """Runs from the first change that is in no document yet, until ``_due_at``."""
        self._due_at = 0.0
        self._sent_at = -APART_S
        self._next_direct_at = 0.0
        self._release = read_os_release(worker.paths)

    def take(self, report: ExtensionReport) -> bool:
        """Keep one report; ``Gone`` takes the handler, or that extension of it, out of the
        document.
        """
        kept = self._reports.take(report)
        if kept is not None:
            self.has_changed(CHANGE_S if is_result(kept) else PATIENCE_S)
        return kept is not None

    def has_changed(self, within_s: float) -> None:
        """Something that a reader of the document would want to know is new: it is stored within
        that time, APART_S after the last document at the earliest.
        """
        due_at = max(self._worker.loop.now() + within_s, self._sent_at + APART_S)
        if self._change is not None and self._due_at <= due_at:
            return
        if self._change is not None:
            self._change.cancel()
        self._due_at = due_at
        self._change = self._worker.loop.after(due_at - self._worker.loop.now(), self._send_change)

    def send_what_is_due(self) -> None:
        """Nothing more will change soon: do not wait for it any longer."""
        if self._change is not None:
            self.has_changed(0.0)

    def _send_change(self) -> None:
        self._change = None
        if self._is_under_way:  # it may be older than the change
            self.has_changed(APART_S)
        else:
            self.send()

    def send(self) -> None:
        """Store the document as it is now; silent while one is under way or nobody said where
        to.
        """
        if self._is_under_way or not self._goal.status_url or self._goal.ids is None:
            return
        self._is_under_way = True
        if self._change is not None:
            self._change.cancel()
            self._change = None
        self._sent_at = self._worker.loop.now()
        reports = self._reports.all(self._goal.handlers)
        outcome = self._goal.outcome
        if outcome is not None:
            outcome = outcome._replace(is_settled=is_settled(reports))
        content = status_blob.status_document(
            describe(self._release),
            now_text(),
            self._agent_message(),
            reports,
            outcome,
            self._goal.features,
        )
        self._try(self._channels.order(self._worker.loop.now()), content, [])

    def _try(self, ways: Sequence[str], content: bytes, errors: list[str]) -> None:
        """The first of ``ways``, the others when it fails; ``errors`` says how earlier ones did."""
        if not ways:
            self._failed("; ".join(errors))
        elif ways[0] == channels.HOST:
            puts = blob_requests.plan_puts(
                self._goal.status_url,
                self._goal.status_blob_type,
                content,
                now_text(),
                padding=b" ",
            )
            self._put_through_host(puts, ways, content, errors)
        elif self._worker.loop.now() < self._next_direct_at:
            self._try(ways[1:], content, errors)
        else:
            self._put_directly(ways, content, errors)

    def _put_through_host(
        self,
        puts: list[blob_requests.Put],
        ways: Sequence[str],
        content: bytes,
        errors: list[str],
    ) -> None:
        ids, first = self._goal.ids, puts[0]
        assert ids is not None
        asked = headers.hostplugin_status_headers(ids["container_id"], ids["config_name"])
        body = host_plugin.status_request(first.url, first.headers, first.content)

        def done(outcome: Outcome) -> None:
            answer = outcome.answer
            if answer is not None and answer.status in constants.OK_STATUSES:
                if puts[1:]:
                    self._put_through_host(puts[1:], ways, content, errors)
                else:
                    self._stored(ways[0])
            elif answer is not None and host_plugin.is_stale(answer.status, answer.body):
                self._finish()
                self._goal.refresh("the host no longer knows our container")
            else:
                status = f"status {answer.status} from the host" if answer else outcome.error
                if answer is None:  # an answer may be the storage's refusal; silence is the host's
                    self._channels.failed([channels.HOST], self._worker.loop.now())
                self._try(ways[1:], content, [*errors, status])

        self._link.hostplugin(
            "PUT",
            constants.STATUS_PATH,
            asked,
            "PUT /status",
            done,
            body=body,
            deadline_s=HOST_DEADLINE_S,
        )

    def _put_directly(self, ways: Sequence[str], content: bytes, errors: list[str]) -> None:
        told: list[str] = []
        stored: list[bool] = []

        def take(frame: Frame) -> None:
            if frame.get("kind") == "stored":
                stored.append(True)
            elif frame.get("kind") == "failed":
                told.append(str(frame.get("text"))[:300])

        def end(error: str) -> None:
            if stored and not error:
                self._next_direct_at = 0.0
                self._stored(ways[0])
                return
            self._next_direct_at = self._worker.loop.now() + DIRECT_PAUSE_S
            self._channels.failed([channels.DIRECT], self._worker.loop.now())
            self._try(ways[1:], content, [*errors, *told, *[error] * bool(error)])

        job = {
            "operation": "status",
            "url": self._goal.status_url,
            "blob_type": self._goal.status_blob_type,
            "content": content,
            "date": now_text(),
            "proxies": self._proxies(),
        }
        self._transfer.run(job, deadline_s=DIRECT_DEADLINE_S, on_frame=take, on_end=end)

    def _stored(self, channel: str) -> None:
        self._channels.worked(channel)
        self._finish()
        self._worker.supervisor.tell(status_at=round(time.monotonic(), 1))
        self._faults.ended("status", f"status stored again channel={channel}")

    def _failed(self, text: str) -> None:
        self._finish()
        where = without_query(self._goal.status_url)
        self._faults.seen(
            "status",
            f"status not stored ({text}): {where}: none needed, tried again within a period",
        )

    def _finish(self) -> None:
        self._is_under_way = False

    def _agent_message(self) -> str:
        """Names the workers that the supervisor has parked, so that the platform shows it."""
        parked = parked_workers(self._worker.state)
        return (
            f"{RUNNING}; parked after repeated failures: {', '.join(parked)}" if parked else RUNNING
        )


def parked_workers(state: int) -> list[str]:
    """Names of parked workers, by the supervisor's state file."""
    return [str(row.get("name")) for row in state_rows(state) if row.get("state") == "PARKED"]


def state_rows(state: int) -> list[dict[str, Any]]:
    """The rows of the state file; empty when it cannot be read now."""
    try:
        if state < 0 or not os.fstat(state).st_size:
            return []
        rows = state_table.read_state(state).get("workers")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    except (state_table.StateError, OSError, ValueError):
        return []
