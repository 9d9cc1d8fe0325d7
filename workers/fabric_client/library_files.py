"""Documents of the goal state that other programs look for below <lib>: handed to
certificate_keeper, which may write there, when they have changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import next_pause_s, spread_s
from waagent.protocol.bus import topics
from waagent.workers.fabric_client.keeper import Keeper

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

SIZE_LIMIT_BYTES = 900 * 1024  # what one bus message carries
DEADLINE_S = 30.0
PAUSES_S = (2.0, 10.0, 60.0, 300.0)
_HOLDER = "documents"


class LibraryFiles:
    """Invariant: the newest of each name is under way or written; certificate_keeper is held only
    meanwhile.
    """

    def __init__(
        self, worker: Worker, keeper: Keeper, written: Callable[[Mapping[str, str]], None]
    ) -> None:
        """``written`` gets the SHA-256 of all that lies there, by name, after each change."""
        self._worker, self._keeper, self._tell = worker, keeper, written
        self._wanted: dict[str, bytes] = {}
        self._tries: dict[str, int] = {}
        self._written: dict[str, str] = {}
        """SHA-256 of what lies there; the text itself may hold account keys and is not kept."""

    def take(self, name: str, data: bytes, sha256: str) -> None:
        """The document ``name`` is ``data`` now."""
        if len(data) > SIZE_LIMIT_BYTES:
            self._worker.faults.seen(
                f"document {name}", f"{name} has {len(data)} bytes: goal state: it is not written"
            )
        elif self._written.get(name) != sha256 and self._wanted.get(name) != data:
            self._wanted[name], self._tries[name] = data, 0
            self._send(name, data, sha256)

    def _send(self, name: str, data: bytes, sha256: str) -> None:
        if self._wanted.get(name) is not data:
            return

        def done(body: Mapping[str, Any] | None, error: str) -> None:
            if self._wanted.get(name) is not data:
                return
            if body is None:
                self._tries[name] += 1
                pause_s = spread_s(next_pause_s(self._tries[name], PAUSES_S))
                self._worker.faults.seen(
                    f"document {name}",
                    f"{name} is not written: {error}: tried again in {pause_s:.0f} s",
                )
                self._worker.loop.after(pause_s, lambda: self._send(name, data, sha256))
            else:
                self._worker.faults.ended(f"document {name}", f"{name} is written")
                self._written[name] = sha256
                del self._wanted[name]
                self._tell(self._written)
            if not self._wanted:
                self._keeper.release(_HOLDER)

        self._keeper.hold(_HOLDER)
        body = {"name": name, "data": data}
        self._keeper.ask(topics.DOCUMENT, body, deadline_s=DEADLINE_S, done=done)
