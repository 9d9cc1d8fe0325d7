"""The certificates of a goal state: asked from the platform for our transport certificate, opened
by certificate_keeper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import next_pause_s, spread_s
from waagent.protocol.bus import topics
from waagent.protocol.wire.constants import CIPHERS
from waagent.workers.fabric_client.endpoint import Link
from waagent.workers.fabric_client.keeper import Keeper
from waagent.workers.fabric_client.transfer_process import Frame, Transfer

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

_HOLDER = "certificates"
OPEN_DEADLINE_S = 60.0
FETCH_DEADLINE_S = 60.0
PAUSES_S = (2.0, 10.0, 30.0, 120.0, 300.0)
CMS_LIMIT_BYTES = 900 * 1024  # what one bus message carries


class Keys:
    """Invariant: one round (transport certificate, document, opening) at a time; certificate_keeper
    is wanted only during it.
    """

    def __init__(
        self,
        worker: Worker,
        link: Link,
        transfer: Transfer,
        keeper: Keeper,
        present: Callable[[tuple[str, ...]], None],
    ) -> None:
        """``present`` gets the thumbprints when a round has succeeded."""
        self._worker, self._link, self._transfer, self._faults, self._present = (
            worker,
            link,
            transfer,
            worker.faults,
            present,
        )
        self._keeper = keeper
        self._target = ""
        self._round = 0
        self._tries = 0

    def fetch(self, target: str) -> None:
        """The goal state's Certificates are at ``target``; empty: there are none."""
        self._round += 1
        self._target, self._tries = target, 0
        if target:
            self._begin(self._round)
        else:
            self._present(())

    def _begin(self, number: int) -> None:
        if number != self._round:
            return
        self._keeper.hold(_HOLDER)
        self._keeper.ask_certificate(
            lambda certificate, error: self._transport_known(number, certificate, error)
        )

    def _transport_known(self, number: int, certificate: str, error: str) -> None:
        if number != self._round:
            return
        if certificate:
            self._ask_platform(number, certificate, list(CIPHERS), [])
        else:
            self._failed(number, error)

    def _ask_platform(
        self, number: int, certificate: str, ciphers: list[str], errors: list[str]
    ) -> None:
        """One cipher after the other; what one cannot do the next may."""
        if number != self._round:
            return
        if not ciphers:
            self._failed(number, "; ".join(errors))
            return
        frames: list[Frame] = []
        job = {
            "operation": "certificates",
            "target": self._target,
            "certificate": certificate,
            "cipher": ciphers[0],
            "endpoint": self._link.address,
            "port": self._link.ports.wire,
        }

        def ended(error: str) -> None:
            data = next(
                (
                    frame["data"]
                    for frame in frames
                    if frame.get("kind") == "cms" and isinstance(frame.get("data"), bytes)
                ),
                None,
            )
            if data is None or len(data) > CMS_LIMIT_BYTES:
                told = [
                    str(frame.get("text"))[:300]
                    for frame in frames
                    if frame.get("kind") == "failed"
                ]
                reason = error or (told[0] if told else "no usable document")
                self._ask_platform(
                    number, certificate, ciphers[1:], [*errors, f"{ciphers[0]}: {reason}"]
                )
            elif number == self._round:
                self._open(number, certificate, data, ciphers, errors)

        self._transfer.run(job, deadline_s=FETCH_DEADLINE_S, on_frame=frames.append, on_end=ended)

    def _open(
        self, number: int, certificate: str, data: bytes, ciphers: list[str], errors: list[str]
    ) -> None:
        if not data:
            self._finish(())
            return

        def opened(body: Mapping[str, Any] | None, error: str) -> None:
            if number != self._round:
                return
            try:
                present = (
                    topics.from_body(topics.CertificatesPresent, body) if body is not None else None
                )
            except topics.BodyError as wrong:
                present, error = None, str(wrong)
            if present is None:
                self._ask_platform(
                    number, certificate, ciphers[1:], [*errors, f"{ciphers[0]}: {error}"]
                )
            else:
                self._finish(present.thumbprints)

        self._keeper.ask(
            topics.CERTIFICATES, {"cms": data}, deadline_s=OPEN_DEADLINE_S, done=opened
        )

    def _finish(self, thumbprints: tuple[str, ...]) -> None:
        self._faults.ended("certificates", "certificates are there again")
        self._keeper.release(_HOLDER)
        self._present(thumbprints)

    def _failed(self, number: int, text: str) -> None:
        self._tries += 1
        pause_s = spread_s(next_pause_s(self._tries, PAUSES_S))
        self._faults.seen(
            "certificates",
            f"certificates cannot be had: {text}: none needed, tried again in {pause_s:.0f} s",
        )
        self._keeper.release(_HOLDER)
        self._worker.loop.after(pause_s, lambda: self._begin(number))
