"""certificate_keeper as the parts of fabric_client share it: it runs while one of them needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus import topics
from waagent.protocol.wire import certificates

if TYPE_CHECKING:
    from waagent.workers.runtime import Worker

NAME = "certificate_keeper"
TRANSPORT_DEADLINE_S = 30.0  # a first start makes an RSA key


class Keeper:
    """Invariant: it is wanted exactly while somebody holds it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._client = worker.bus.client(NAME)
        self._holders: set[str] = set()

    def hold(self, holder: str) -> None:
        """``holder`` needs it from now on; saying so again changes nothing."""
        if not self._holders:
            self._worker.supervisor.want(NAME)
        self._holders.add(holder)

    def release(self, holder: str) -> None:
        """``holder`` does not need it any more."""
        if holder in self._holders:
            self._holders.remove(holder)
            if not self._holders:
                self._worker.supervisor.unwant(NAME)

    def ask(
        self,
        topic: str,
        body: Mapping[str, Any],
        *,
        deadline_s: float,
        done: Callable[[Mapping[str, Any] | None, str], None],
    ) -> None:
        """As `Client.ask`."""
        self._client.ask(topic, body, deadline_s=deadline_s, done=done)

    def ask_certificate(self, done: Callable[[str, str], None]) -> None:
        """The transport certificate as its request header has it, or why it cannot be had."""

        def known(body: Mapping[str, Any] | None, error: str) -> None:
            try:
                certificate = certificates.der_base64(str((body or {}).get("certificate", "")))
            except DocumentError as missing:
                done("", error or str(missing))
            else:
                done(certificate, "")

        self.ask(topics.TRANSPORT, {}, deadline_s=TRANSPORT_DEADLINE_S, done=known)
