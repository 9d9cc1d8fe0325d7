"""The HostGAPlugin, port 32526: a table of requests and the function that answers each; what the
platform would refuse is refused and noted as a complaint.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from waagent.lab.fabric import vm_settings
from waagent.lab.fabric.http import Request
from waagent.lab.fabric.values import JSON, PLUGIN_VERSION, TEXT, Answer

if TYPE_CHECKING:
    from waagent.lab.fabric.fabric import Fabric

Handler = Callable[["Fabric", Request], Answer]
_LOG_LIMIT_BYTES = 40 * 1024 * 1024


def answer(fabric: Fabric, request: Request) -> tuple[str, Answer]:
    """(target of faults, answer)"""
    path = request.path.partition("?")[0]
    for method, wanted, target, needs, handler in _TABLE:
        if (method, wanted) == (request.method, path):
            refused = _refused(fabric, request, needs)
            return target, handler(fabric, request) if refused is None else refused
    fabric.complain(f"{request.method} {request.path}: no such request on the HostGAPlugin")
    return "unknown", Answer(404, b"not found", TEXT)


def _refused(fabric: Fabric, request: Request, needs: tuple[str, ...]) -> Answer | None:
    """Why the headers would not do; None when they do."""
    what = f"{request.method} {request.path.partition('?')[0]}"
    for name in needs:
        if name not in request.headers:
            return _refuse(fabric, f"{what}: header {name} is missing")
    if "x-ms-version" in needs and request.headers["x-ms-version"] != PLUGIN_VERSION:
        return _refuse(fabric, f"{what}: x-ms-version is {request.headers['x-ms-version']!r}")
    if request.method == "PUT" and not request.headers.get("content-type"):
        return _refuse(fabric, f"{what}: Content-Type is missing")
    valid = {
        "x-ms-containerid": (fabric.vm.container_id, fabric.had_container),
        "x-ms-host-config-name": (fabric.vm.config_name, fabric.had_config_name),
    }
    for name, (now, was_ever) in valid.items():
        if name in needs and request.headers[name] != now:
            if not was_ever(request.headers[name]):
                fabric.complain(f"{what}: there was no {name} {request.headers[name]!r}")
            return Answer(410, f"{name} is stale".encode(), TEXT)
    return None


def _refuse(fabric: Fabric, text: str) -> Answer:
    fabric.complain(text)
    return Answer(400, text.encode(), TEXT)


def _versions(fabric: Fabric, request: Request) -> Answer:
    return Answer(200, json.dumps([PLUGIN_VERSION]).encode(), JSON)


def _health(fabric: Fabric, request: Request) -> Answer:
    return Answer(200)


def _vm_settings(fabric: Fabric, request: Request) -> Answer:
    correlation = request.headers["x-ms-client-correlationid"]
    try:
        uuid.UUID(correlation)
    except ValueError:
        return _refuse(fabric, f"/vmSettings: x-ms-client-correlationid is {correlation!r}")
    if not fabric.is_new_correlation(correlation):
        fabric.complain("/vmSettings: x-ms-client-correlationid was used before")
    if not fabric.vm.supports_vm_settings:
        return Answer(404, b"not supported", TEXT)
    body = vm_settings.document(fabric.vm, fabric.protect, fabric.blob_url).encode()
    etag = vm_settings.etag(body)
    if request.headers.get("if-none-match") == etag:
        return Answer(304, b"", JSON, {"ETag": etag})
    return Answer(200, body, JSON, {"ETag": etag})


def _artifact(fabric: Fabric, request: Request) -> Answer:
    if (
        fabric.vm.fast_track is not None
        and request.headers.get("x-ms-verify-from-artifacts-blob") != "true"
    ):
        fabric.complain(
            "/extensionArtifact: x-ms-verify-from-artifacts-blob is missing (FastTrack)"
        )
    found = fabric.blobs.get(request.headers["x-ms-artifact-location"])
    return found if found.status == 200 else Answer(502, found.body, TEXT)


def _status(fabric: Fabric, request: Request) -> Answer:
    try:
        order: dict[str, Any] = json.loads(request.body)
        url = str(order["requestUri"])
        headers = {
            str(item["headerName"]).lower(): str(item["headerValue"]) for item in order["headers"]
        }
        content = base64.b64decode(order.get("content") or "", validate=True)
    except (ValueError, KeyError, TypeError) as error:
        return _refuse(fabric, f"/status: {type(error).__name__}: {error}")
    given = request.headers["content-type"].partition(";")[0].strip()
    if given != "application/json":
        return _refuse(fabric, f"/status: Content-Type is {given!r}")
    length = headers.setdefault("content-length", str(len(content)))
    if length != str(len(content)):
        return _refuse(fabric, f"/status: Content-Length {length}, content of {len(content)} bytes")
    answer = fabric.blobs.put(url, headers, content)
    if answer.status != 201:
        fabric.complain(f"/status: storage answered {answer.status} {answer.body.decode()}")
        return Answer(502, answer.body, TEXT)
    fabric.keep_status(unquote(urlsplit(url).path), "plugin", headers.get("x-ms-blob-type", "page"))
    return Answer(200)


def _agent_log(fabric: Fabric, request: Request) -> Answer:
    deployment = request.headers["x-ms-vmagentlog-deploymentid"]
    if deployment != fabric.vm.config_name.partition(".")[0]:
        return _refuse(fabric, f"/vmAgentLog: the deployment is {deployment!r}")
    if not request.body.startswith(b"PK\x03\x04") or len(request.body) > _LOG_LIMIT_BYTES:
        return _refuse(fabric, f"/vmAgentLog: {len(request.body)} bytes, not a zip or too many")
    fabric.keep_agent_log(request.body)
    return Answer(200)


_CONTAINER = ("x-ms-version", "x-ms-containerid")
_COMMON = (*_CONTAINER, "x-ms-host-config-name")
_LOG = (
    *_CONTAINER,
    "x-ms-vmagentlog-deploymentid",
    "x-ms-client-name",
    "x-ms-client-version",
    "x-ms-client-correlationid",
)
_TABLE: tuple[tuple[str, str, str, tuple[str, ...], Handler], ...] = (
    # method path              target             headers it needs                     answer
    ("GET", "/versions", "plugin_versions", ("x-ms-containerid",), _versions),
    ("GET", "/health", "plugin_health", (), _health),
    ("GET", "/vmSettings", "vm_settings", (*_COMMON, "x-ms-client-correlationid"), _vm_settings),
    ("GET", "/extensionArtifact", "artifact", (*_COMMON, "x-ms-artifact-location"), _artifact),
    ("PUT", "/status", "status", _COMMON, _status),
    ("PUT", "/vmAgentLog", "agent_log", _LOG, _agent_log),
)
