"""A handler's package: publisher manifest, choice of the version, download into the spool (part of
transfer).

Each URL is tried by both ways to storage in the order of the job's ``channels``, each with a time
of its own, so that one that hangs costs the other nothing; the whole is repeated with growing
pauses for ``retry_s``, after that by extension_runner, for ten minutes (spec: extensions §3.6). A
download that is quick enough has until the deadline.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from waagent.protocol.base.backoff import next_pause_s
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire import constants, host_plugin
from waagent.protocol.wire.headers import artifact_headers
from waagent.protocol.wire.http1 import StreamReader
from waagent.protocol.wire.publisher_manifest import Package, choose_package, read_manifest
from waagent.protocol.wire.urls import without_query
from waagent.workers.fabric_client import plain_http

MANIFEST_FAILED, PACKAGE_FAILED = 1001, 1004  # spec: wire §2.13.1, extension error codes
ATTEMPT_S = 270.0  # one way; both fit into the deadline
PIECE_BYTES, PIECE_S = 64 * 1024, 30.0
"""As in storage.py: what is slower than that is given up."""
SMALL_S = 30.0
_PAUSES_S = (1, 2, 4, 8, 15, 30, 60)


class _Failed(Exception):
    """A step did not succeed now; ``code`` is the extension error code."""

    def __init__(
        self, code: int, text: str, *, is_final: bool = False, is_stale: bool = False
    ) -> None:
        super().__init__(text)
        self.code, self.is_final, self.is_stale = code, is_final, is_stale


class _Stale(DocumentError):
    """The HostGAPlugin no longer knows our container."""


def fetch_package(
    job: Mapping[str, Any], send: Callable[..., None], connect: plain_http.Connect
) -> None:
    """Operation package; `failed` carries the code, and `stale` when fresh identifiers are
    needed.
    """
    until = time.monotonic() + float(job["deadline_s"]) - 5
    retry_until = min(until, time.monotonic() + float(job["retry_s"]))
    failed_tries = 0
    while True:
        try:
            send("package", **_fetch_once(job, connect, until))
            return
        except _Failed as failure:
            failed_tries += 1
            pause_s = next_pause_s(failed_tries, _PAUSES_S)
            if failure.is_final or failure.is_stale or time.monotonic() + pause_s > retry_until:
                send(
                    "failed",
                    part="package",
                    text=f"{failure.code}: {failure}",
                    status=0,
                    is_stale=failure.is_stale,
                )
                return
        time.sleep(pause_s)


def _fetch_once(
    job: Mapping[str, Any], connect: plain_http.Connect, until: float
) -> dict[str, Any]:
    failed: list[str] = []
    manifest_url, package = _find_package(job, connect, until, failed)
    # what could not bring the manifest is not waited for again
    channels = sorted(job["channels"], key=lambda name: name in failed)
    job = {**job, "channels": channels}
    errors: list[str] = []
    for uri in random.sample(package.uris, len(package.uris)):
        for channel, pieces in _channels(job, connect, uri, until, manifest_url):
            try:
                return {
                    "uri": without_query(uri),
                    "channel": channel,
                    "failed_channels": [name for name in failed if name != channel],
                    **_store(pieces, Path(job["folder"]), job["name"], package.version),
                }
            except _Stale as error:
                raise _Failed(PACKAGE_FAILED, str(error), is_stale=True) from error
            except DocumentError as error:
                failed.append(channel)
                errors.append(f"{error.what}: {error.where}")
            except OSError as error:
                raise _Failed(
                    PACKAGE_FAILED,
                    f"cannot write the spool ({error.strerror}): {job['folder']}: make room there",
                ) from error
    raise _Failed(
        PACKAGE_FAILED,
        f"Failed to download package {job['name']} {package.version}: " + "; ".join(errors[-4:]),
    )


def _find_package(
    job: Mapping[str, Any], connect: plain_http.Connect, until: float, failed: list[str]
) -> tuple[str, Package]:
    """The package and the manifest's URL it was found in; ``failed`` gets the ways that failed."""
    errors: list[str] = []
    if not job["manifest_urls"]:
        raise _Failed(
            MANIFEST_FAILED,
            f"the goal state has no manifest location for {job['name']}",
            is_final=True,
        )
    for url in random.sample(job["manifest_urls"], len(job["manifest_urls"])):
        for channel, pieces in _channels(job, connect, url, until, ""):
            try:
                data = _collect(pieces, constants.MANIFEST_LIMIT_BYTES, without_query(url))
                return url, choose_package(
                    read_manifest(data, without_query(url)), job["version"], without_query(url)
                )
            except _Stale as error:
                raise _Failed(MANIFEST_FAILED, str(error), is_stale=True) from error
            except DocumentError as error:
                failed.append(channel)
                errors.append(f"{error.what}: {error.where}")
    raise _Failed(
        MANIFEST_FAILED, f"Failed to download manifest of {job['name']}: " + "; ".join(errors[-4:])
    )


def _channels(
    job: Mapping[str, Any],
    connect: plain_http.Connect,
    url: str,
    until: float,
    manifest_url: str,
) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The same content by each way."""
    for channel in job["channels"]:
        attempt_until = min(until, time.monotonic() + ATTEMPT_S)
        if channel == "host":
            yield (
                channel,
                at_least(_through_host(job, connect, url, attempt_until, manifest_url), url),
            )
        else:
            yield channel, _directly(job, url, attempt_until)


def at_least(pieces: Iterable[bytes], url: str) -> Iterator[bytes]:
    """``pieces``, as long as they bring PIECE_BYTES in each PIECE_S. Raises DocumentError."""
    began, window_bytes = time.monotonic(), 0
    for piece in pieces:
        window_bytes += len(piece)
        if window_bytes >= PIECE_BYTES:
            began, window_bytes = time.monotonic(), 0
        elif time.monotonic() - began > PIECE_S:
            raise DocumentError(
                f"less than {PIECE_BYTES} bytes in {PIECE_S:g} s",
                f"{without_query(url)} through the host",
            )
        yield piece


def read_small(
    job: Mapping[str, Any], connect: plain_http.Connect, url: str, limit_bytes: int
) -> bytes:
    """The content of ``url`` by whichever way has it. Raises DocumentError."""
    errors: list[str] = []
    for _, pieces in _channels(job, connect, url, time.monotonic() + SMALL_S, ""):
        try:
            return _collect(pieces, limit_bytes, without_query(url))
        except DocumentError as error:
            errors.append(error.what)
    raise DocumentError("; ".join(errors), without_query(url))


def _directly(job: Mapping[str, Any], url: str, until: float) -> Iterator[bytes]:
    # requests: 60 ms and 12 MiB that are not needed while the host serves
    from waagent.workers.fabric_client import storage

    with storage.open_session(job) as session:
        yield from storage.receive(session, url, until)


def _through_host(
    job: Mapping[str, Any], connect: plain_http.Connect, url: str, until: float, manifest_url: str
) -> Iterator[bytes]:
    headers = artifact_headers(
        job["container_id"],
        job["config_name"],
        url,
        manifest_url,
        is_fast_track=bool(job.get("is_fast_track")),
    )
    where = f"{without_query(url)} through the host"
    reader = StreamReader(where)
    address = (job["endpoint"], job["hostplugin_port"])
    refusal = bytearray()
    left_s = max(1.0, until - time.monotonic())
    for data in plain_http.receive(
        connect, address, constants.ARTIFACT_PATH, headers, where, deadline_s=left_s
    ):
        piece = reader.feed(data) if data else reader.end()
        if reader.status == 200:
            yield piece
        else:
            refusal += piece[: constants.ANSWER_LIMIT_BYTES - len(refusal)]
        if reader.is_whole:
            break
    if reader.status != 200:
        kind = _Stale if host_plugin.is_stale(reader.status, bytes(refusal)) else DocumentError
        raise kind(f"status {reader.status}", where)


def _collect(pieces: Iterable[bytes], limit_bytes: int, where: str) -> bytes:
    data = bytearray()
    for piece in pieces:
        data += piece
        if len(data) > limit_bytes:
            raise DocumentError(f"more than {limit_bytes} bytes", where)
    return bytes(data)


def _store(pieces: Iterable[bytes], folder: Path, name: str, version: str) -> dict[str, Any]:
    """Into the spool under a name with its hash; nothing is left of a download that broke off."""
    temporary = folder / f".tmp-{os.getpid()}-{os.urandom(4).hex()}"
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with open(
            temporary, "xb", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600)
        ) as stream:
            for piece in pieces:
                size_bytes += len(piece)
                if size_bytes > constants.PACKAGE_LIMIT_BYTES:
                    raise DocumentError(
                        f"more than {constants.PACKAGE_LIMIT_BYTES} bytes",
                        f"package of {name} {version}",
                    )
                digest.update(piece)
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        file = f"{name}__{version}.{digest.hexdigest()[:16]}.zip"
        os.replace(temporary, folder / file)
    finally:
        temporary.unlink(missing_ok=True)
    return {"file": file, "size_bytes": size_bytes, "sha256": digest.hexdigest()}
