"""Stands in for fabric_client's room: says what ROOT/goal.json says, hands over packages, notes
what it is told in ROOT/reports.jsonl.

goal.json is `{"summary": …, "handlers": {name: body}, "packages": {"name-version": file}}`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waagent.protocol.bus import parts, topics

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.runtime import Worker

RUNNER = ("extension_runner",)
LOOK_S = 0.05


class Files:
    """The newest goal.json."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._root = worker, Path(worker.paths.root)
        self._server = worker.bus.serve()
        self._server.on_request(topics.HANDLER, RUNNER, self._handler)
        self._server.on_request(topics.PACKAGE, RUNNER, self._package)
        self._server.on_request(topics.STATUS, RUNNER, self._status)
        self._text = ""
        self._document: dict[str, Any] = {}
        self._look()

    def _look(self) -> None:
        self._worker.loop.after(LOOK_S, self._look)
        path = self._root / "goal.json"
        text = path.read_text() if path.exists() else ""
        if text != self._text:
            self._text, self._document = text, json.loads(text)
            self._server.publish(
                topics.GOAL_STATE,
                topics.to_body(
                    topics.from_body(topics.GoalStateSummary, self._document["summary"])
                ),
            )

    def _handler(self, request: Request) -> Mapping[str, Any] | None:
        body = self._document["handlers"][request.body["name"]]
        part = parts.cut(body, request.body["part"])
        return body if part is None else topics.to_body(part)  # type: ignore[no-any-return]

    def _package(self, request: Request) -> Mapping[str, Any] | None:
        name = f"{request.body['name']}-{request.body['version']}"
        source = self._document["packages"].get(name)
        if source is None:
            request.refuse(f"1001: no package {name}")
            return None
        data = Path(source).read_bytes()
        shutil.copy(source, self._worker.paths.cache / name)
        return topics.to_body(
            topics.PackageFile(name, len(data), hashlib.sha256(data).hexdigest(), "http://x/y")
        )

    def _status(self, request: Request) -> Mapping[str, Any] | None:
        report = topics.from_body(topics.ExtensionReport, request.body)
        with open(self._root / "reports.jsonl", "a") as file:
            file.write(json.dumps({"at": time.monotonic(), **topics.to_body(report)}) + "\n")
        return {}


def main(worker: Worker) -> None:
    """Serve until told to stop."""
    Files(worker)
    worker.supervisor.ready()
    worker.loop.run()
