"""The runner alone: `standin.py ROOT` runs waagent.workers.extension_runner.main over folders instead of the bus.

ROOT/goal.json says what fabric_client would: `{"summary": …, "handlers": {name: body}, "packages": {"name-version": file}}`; reports are
appended to ROOT/reports.jsonl. Everything else (shims, unpacker, status reader) is real.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import logging
import select
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro.paths import Paths
from waagent.protocol.bus import topics
from waagent.workers.extension_runner.main import main


class Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class StandIn:
    """What the runner uses of workers.runtime.Worker."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root)
        self.place: tuple[str, ...] = ()
        self.configuration: Mapping[str, Any] = json.loads((root / "configuration.json").read_text())
        self.log = logging.getLogger("waagent")
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._root = root

    def ready(self) -> None:
        (self._root / "ready").touch()

    def doing(self, what: str) -> None:
        (self._root / "doing").write_text(what)

    def client(self, _name: str) -> FileFabric:
        return FileFabric(self, self._root)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        def again() -> None:
            self.after(seconds, again)
            call()

        return self.after(seconds, again)

    def on_readable(self, fd: int, call: Callable[[], None]) -> None:
        self._readers[fd] = call

    def on_writable(self, fd: int, call: Callable[[], None]) -> None:
        self._writers[fd] = call

    def forget(self, fd: int) -> None:
        self._readers.pop(fd, None)
        self._writers.pop(fd, None)

    def on_configure(self, _call: Callable[[], None]) -> None:
        """The configuration does not change here."""

    def loop(self) -> None:
        while True:
            wait_s = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 1.0
            readable, writable, _ = select.select(list(self._readers), list(self._writers), [], wait_s)
            for fd in readable:
                if fd in self._readers:
                    self._readers[fd]()
            for fd in writable:
                if fd in self._writers:
                    self._writers[fd]()
            now = time.monotonic()
            due = []
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            for timer in due:
                if timer.call is not None:
                    timer.call()
            lag_s = time.monotonic() - now
            if lag_s > 0.5:
                (self._root / "lag").open("a").write(f"{lag_s:.2f}\n")


class FileFabric:
    """fabric_client, as far as the runner sees it."""

    def __init__(self, worker: StandIn, root: Path) -> None:
        self._worker, self._root = worker, root
        self._text = ""

    def on_new_server(self, call: Callable[[], None]) -> None:
        """There is never another one."""

    def subscribe(self, _topic: str, changed: Callable[[Mapping[str, Any], int], None]) -> None:
        def look() -> None:
            self._worker.after(0.05, look)
            path = self._root / "goal.json"
            text = path.read_text() if path.exists() else ""
            if text != self._text:
                self._text = text
                changed(json.loads(text)["summary"], 1)

        look()

    def ask(self, topic: str, body: Mapping[str, Any], *, deadline_s: float, done: Callable[[Mapping[str, Any] | None, str], None]) -> None:
        answer, problem = self._answer(topic, body)
        self._worker.after(0.001, lambda: done(answer, problem))

    def _answer(self, topic: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
        document = json.loads(self._text)
        if topic == topics.HANDLER:
            return document["handlers"][body["name"]], ""
        if topic == topics.STATUS:
            with open(self._root / "reports.jsonl", "a") as file:
                file.write(json.dumps({"at": time.monotonic(), **body}) + "\n")
            return {}, ""
        name = f"{body['name']}-{body['version']}"
        with open(self._root / "fetches", "a") as file:
            file.write(name + "\n")
        source = document["packages"].get(name)
        if source is None:
            return None, f"1001: no package {name}"
        data = Path(source).read_bytes()
        shutil.copy(source, self._worker.paths.cache / name)
        return topics.PackageFile(name, len(data), hashlib.sha256(data).hexdigest(), "http://x/y").to_body(), ""


if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")
    main(StandIn(Path(sys.argv[1])))  # type: ignore[arg-type]
