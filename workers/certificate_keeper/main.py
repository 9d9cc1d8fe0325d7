"""Owns the transport key and opens with it what the platform encrypted; nobody else reads the key.

Is asked by fabric_client: TRANSPORT for the certificate, CERTIFICATES with a CMS message, whose
certificates and keys it writes below <lib>, DOCUMENT with one of two documents that others look for
there; by account_keeper: PASSWORD with a CMS message, for what is in it. Asks nobody, has no use
for a network. Root, since <lib> and its keys are root's; started when it is wanted, ends after
IDLE_S without a request.
Killed here: a file is written whole or not at all, the request is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.bus import topics
from waagent.workers.certificate_keeper.decrypt import open_certificates, open_password
from waagent.workers.certificate_keeper.openssl import Openssl
from waagent.workers.certificate_keeper.store import write_pairs
from waagent.workers.certificate_keeper.transport import ensure_transport

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.runtime import Worker

IDLE_S = 10.0
CLIENTS = ("fabric_client",)
ACCOUNTS = ("account_keeper",)
DOCUMENTS = ("HostingEnvironmentConfig.xml", "SharedConfig.xml")
"""What other programs look for below <lib>; no other name is written."""


def main(worker: Worker) -> None:
    """Make the transport certificate if there is none, answer, end when nobody asks any more."""
    keeper = Keeper(worker)
    keeper.serve()
    worker.supervisor.ready()
    worker.loop.run()


class Keeper:
    """Invariant: what is answered lies on the disk already."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._paths: Paths = worker.paths.configured(worker.configuration)
        self._openssl = Openssl(
            worker.run, str(worker.configuration.get("OS.OpensslPath") or "openssl")
        )
        self._idle = worker.loop.after(IDLE_S, worker.loop.stop)

    def serve(self) -> None:
        """Who may ask what."""
        server = self._worker.bus.serve()
        server.on_request(topics.TRANSPORT, CLIENTS, self._transport)
        server.on_request(topics.CERTIFICATES, CLIENTS, self._certificates)
        server.on_request(topics.DOCUMENT, CLIENTS, self._document)
        server.on_request(topics.PASSWORD, ACCOUNTS, self._password)

    def _transport(self, request: Request) -> Mapping[str, Any] | None:
        return self._carry_out(
            request,
            lambda: {"certificate": ensure_transport(self._paths, self._openssl, self._worker.log)},
        )

    def _certificates(self, request: Request) -> Mapping[str, Any] | None:
        cms = request.body.get("cms")
        if not isinstance(cms, bytes):
            raise topics.BodyError("cms is missing or not bytes")

        def open_and_write() -> Mapping[str, Any]:
            ensure_transport(self._paths, self._openssl, self._worker.log)
            pairs = open_certificates(cms, self._paths.transport, self._openssl)
            return topics.to_body(write_pairs(self._paths.library, pairs, self._worker.log))

        return self._carry_out(request, open_and_write)

    def _document(self, request: Request) -> Mapping[str, Any] | None:
        data, name = request.body.get("data"), f"{request.body.get('name')}.xml"
        if not isinstance(data, bytes) or name not in DOCUMENTS:
            raise topics.BodyError("name or data is missing or not one of ours")

        def write() -> Mapping[str, Any]:
            # HostingEnvironmentConfig may hold account keys
            write_atomic(self._paths.library / name, data, mode=0o600)
            return {}

        return self._carry_out(request, write)

    def _password(self, request: Request) -> Mapping[str, Any] | None:
        cms = request.body.get("cms")
        if not isinstance(cms, bytes):
            raise topics.BodyError("cms is missing or not bytes")

        def decrypt() -> Mapping[str, Any]:
            return {"password": open_password(cms, self._paths.transport, self._openssl)}

        return self._carry_out(request, decrypt)

    def _carry_out(self, request: Request, work: Any) -> Mapping[str, Any] | None:
        """The answer, or a refusal with the error's text; idleness begins anew."""
        self._idle.cancel()
        try:
            answer: Mapping[str, Any] = work()
        except (DocumentError, OSError) as error:
            self._worker.log.warning("%s", error)
            request.refuse(str(error))
            return None
        finally:
            self._idle = self._worker.loop.after(IDLE_S, self._worker.loop.stop)
        return answer
