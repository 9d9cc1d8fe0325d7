"""Packages on request: each fetched once, a few at a time, asked again without being fetched
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.protocol.bus import topics
from waagent.protocol.bus.topics import BodyError, PackageFile
from waagent.protocol.wire import identifiers
from waagent.workers.fabric_client import floor
from waagent.workers.fabric_client.channels import Channels
from waagent.workers.fabric_client.endpoint import Link
from waagent.workers.fabric_client.transfer_process import Frame, Transfer

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.fabric_client.goal_state import Goal
    from waagent.workers.runtime import Worker

AT_ONCE = 4  # that have not been found to be slow
AT_ALL = 8  # each is a process of 12 MiB, with TLS 25, and all of them share 256 MiB
SLOW_S = 20.0  # from then on a download holds no place of AT_ONCE
DEADLINE_S = 600.0
RETRY_S = 5.0  # inside the transfer; extension_runner asks again for ten minutes
KEPT_S = 900.0

Key = tuple[str, str]


class _Fetch:
    def __init__(self, requests: list[Request]) -> None:
        self.requests = requests
        self.package: PackageFile | None = None
        self.error = "1004: the download ended without a result"
        self.is_stale = False
        self.is_slow = False


class Packages:
    """Invariant: a name and version is fetched by one transfer at a time; files older than KEPT_S
    are removed.
    """

    def __init__(
        self,
        worker: Worker,
        link: Link,
        transfer: Transfer,
        goal: Goal,
        spool: Path,
        channels: Channels,
        proxies: Callable[[], dict[str, str]],
    ) -> None:
        self._worker, self._link, self._transfer, self._goal = worker, link, transfer, goal
        self._spool, self._channels, self._proxies = spool, channels, proxies
        self._under_way: dict[Key, _Fetch] = {}
        self._waiting: deque[Key] = deque()
        self._kept: dict[Key, PackageFile] = {}

    def empty_spool(self) -> None:
        """Nothing in it is known to anybody now; a reader that has a file open keeps it."""
        try:
            for path in self._spool.iterdir():
                if path.name != floor.NAME:
                    path.unlink()
        except OSError as error:
            self._worker.log.debug("spool is not emptied: %s", error)

    def asked(self, request: Request) -> None:
        """PACKAGE: answered when the file is there, refused with the extension error code first."""
        name, version = request.body.get("name"), request.body.get("version")
        if not isinstance(name, str) or not isinstance(version, str):
            raise BodyError("name or version is missing")
        if not identifiers.is_handler_name(name) or not identifiers.is_version(version):
            raise BodyError("name or version is not one")
        key = (name.lower(), version)
        kept = self._kept.get(key)
        if kept is not None and (self._spool / kept.file).exists():
            request.answer(topics.to_body(kept))
        elif key in self._under_way:
            self._under_way[key].requests.append(request)
        elif key[0] not in self._goal.handlers or self._goal.ids is None:
            request.refuse(f"1001: {name} is not in the goal state")
        else:
            self._under_way[key] = _Fetch([request])
            self._waiting.append(key)
            self._start_next()

    def _start_next(self) -> None:
        """Slow downloads never hold the last place."""
        while self._waiting:
            running = [fetch for key, fetch in self._under_way.items() if key not in self._waiting]
            quick = sum(not fetch.is_slow for fetch in running)
            if quick >= AT_ONCE or len(running) >= AT_ALL:
                return
            self._start(self._waiting.popleft())

    def _found_slow(self, key: Key, fetch: _Fetch) -> None:
        if self._under_way.get(key) is fetch:
            fetch.is_slow = True
            self._start_next()

    def _start(self, key: Key) -> None:
        fetch, ids = self._under_way[key], self._goal.ids
        assert ids is not None
        job = {
            "operation": "package",
            "name": self._goal.handlers[key[0]].name if key[0] in self._goal.handlers else key[0],
            "version": key[1],
            "manifest_urls": self._goal.manifest_urls.get(key[0], []),
            "endpoint": self._link.address,
            "hostplugin_port": self._link.ports.hostplugin,
            "container_id": ids["container_id"],
            "config_name": ids["config_name"],
            "folder": str(self._spool),
            "channels": self._channels.order(self._worker.loop.now()),
            "proxies": self._proxies(),
            "is_fast_track": self._goal.is_fast_track,
            "retry_s": RETRY_S,
        }
        self._worker.loop.after(SLOW_S, lambda: self._found_slow(key, fetch))
        self._transfer.run(
            job,
            deadline_s=DEADLINE_S,
            on_frame=lambda frame: self._take(fetch, frame),
            on_end=lambda error: self._end(key, fetch, error),
        )

    def _take(self, fetch: _Fetch, frame: Frame) -> None:
        if frame.get("kind") == "package":
            try:
                package = topics.from_body(PackageFile, frame)
            except BodyError as error:
                fetch.error = f"1004: transfer said {error}"
                return
            fetch.package = None if "/" in package.file else package
            self._channels.worked(str(frame.get("channel")))
            failed = [str(name) for name in frame.get("failed_channels") or ()]
            self._channels.failed(failed, self._worker.loop.now())
        elif frame.get("kind") == "failed":
            fetch.error, fetch.is_stale = str(frame.get("text"))[:2000], bool(frame.get("is_stale"))

    def _end(self, key: Key, fetch: _Fetch, error: str) -> None:
        del self._under_way[key]
        if fetch.is_stale:
            self._goal.refresh("the host no longer knows our container")
        package = fetch.package
        if package is not None:
            self._kept[key] = package
            self._worker.log.info(
                "package fetched handler=%s version=%s bytes=%d from=%s",
                key[0],
                key[1],
                package.size_bytes,
                package.uri,
            )
            self._worker.loop.after(KEPT_S, lambda: self._forget(key, package))
        elif error:
            fetch.error = f"1004: {error}"
        for request in fetch.requests:
            if package is not None:
                request.answer(topics.to_body(package))
            else:
                request.refuse(fetch.error)
        self._start_next()
        if not self._under_way:
            self._remove_remains()

    def _remove_remains(self) -> None:
        """What a transfer that was killed left behind."""
        for path in self._spool.glob(".tmp-*"):
            path.unlink(missing_ok=True)

    def _forget(self, key: Key, package: PackageFile) -> None:
        if self._kept.get(key) == package:
            del self._kept[key]
            (self._spool / package.file).unlink(missing_ok=True)
