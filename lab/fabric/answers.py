"""What the platform answers: one table per server, each row a request and the function that answers
it (spec: wire §2, §3).
"""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from waagent.lab.fabric import crypto, documents
from waagent.lab.fabric.http import Request
from waagent.lab.fabric.values import (
    PLUGIN_VERSION,
    PROTOCOL_VERSION,
    STORAGE_HOST,
    Answer,
    LabError,
)

if TYPE_CHECKING:
    from waagent.lab.fabric.fabric import Fabric

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

_WIRE_HEADERS = {"x-ms-agent-name": "WALinuxAgent", "x-ms-version": PROTOCOL_VERSION}
_XML_TYPES = ("text/xml;charset=utf-8", "text/xml; charset=utf-8")

Handler = Callable[["Fabric", Request], Answer]


def wire(fabric: Fabric, request: Request) -> tuple[str, Answer]:
    """WireServer, port 80; on the storage and metadata addresses the Host header decides."""
    host = request.headers.get("host", "").split(":")[0]
    if host == STORAGE_HOST:
        return "storage", _storage(fabric, request)
    path, _, query = request.path.partition("?")
    if path.startswith("/metadata/"):
        return "metadata", _metadata(request)
    kind = parse_qs(query).get("type", [""])[0]
    comp = parse_qs(query).get("comp", [""])[0]
    for method, wanted_path, wanted_comp, wanted_kind, target, handler in _WIRE:
        if (method, wanted_comp, wanted_kind) == (request.method, comp, kind) and wanted_path in (
            path,
            "*",
        ):
            return target, _checked(fabric, request, target, handler)
    fabric.complain(f"{request.method} {request.path}: no such request on the WireServer")
    return "unknown", Answer(404, b"not found", TEXT)


def plugin(fabric: Fabric, request: Request) -> tuple[str, Answer]:
    """HostGAPlugin, port 32526."""
    path = request.path.partition("?")[0]
    for method, wanted, target, needs, handler in _PLUGIN:
        if (method, wanted) == (request.method, path):
            missing = [name for name in needs if name not in request.headers]
            if missing:
                fabric.complain(f"{request.method} {path}: header {missing[0]} is missing")
                return target, Answer(400, f"header {missing[0]} is missing".encode(), TEXT)
            if (
                "x-ms-containerid" in needs
                and request.headers["x-ms-containerid"] != fabric.vm.container_id
            ):
                return target, Answer(410, b"ContainerId is stale", TEXT)
            if (
                "x-ms-host-config-name" in needs
                and request.headers["x-ms-host-config-name"] != fabric.vm.config_name
            ):
                return target, Answer(410, b"ConfigName is stale", TEXT)
            return target, handler(fabric, request)
    fabric.complain(f"{request.method} {request.path}: no such request on the HostGAPlugin")
    return "unknown", Answer(404, b"not found", TEXT)


# ---- WireServer


def _checked(fabric: Fabric, request: Request, target: str, handler: Handler) -> Answer:
    if target not in ("versions", "health_service"):
        for name, value in _WIRE_HEADERS.items():
            if request.headers.get(name) != value:
                fabric.complain(
                    f"{target}: header {name} is {request.headers.get(name)!r}, not {value!r}"
                )
                return Answer(400, f"header {name}".encode(), TEXT)
    if (
        target in ("health", "role_properties", "telemetry")
        and request.headers.get("content-type") not in _XML_TYPES
    ):
        fabric.complain(f"{target}: Content-Type is {request.headers.get('content-type')!r}")
    return handler(fabric, request)


def _versions(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.versions(fabric.vm))


def _goal_state(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.goal_state(fabric.vm_now(), fabric.base))


def _hosting_environment(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.hosting_environment(fabric.vm, fabric.tenant.thumbprint))


def _shared_config(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.shared_config(fabric.vm))


def _extensions_config(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.extensions_config(fabric.vm, fabric.protect, fabric.scheme))


def _full_config(fabric: Fabric, request: Request) -> Answer:
    return _document('<?xml version="1.0"?><FullConfig />')


def _certificates(fabric: Fabric, request: Request) -> Answer:
    transport = request.headers.get("x-ms-guest-agent-public-x509-cert", "")
    if not transport:
        fabric.complain("certificates: header x-ms-guest-agent-public-x509-cert is missing")
        return Answer(400, b"no transport certificate", TEXT)
    cipher = crypto.cipher_of(request.headers, fabric.vm.ciphers)
    if cipher is None:
        return Answer(400, b"cipher not supported", TEXT)
    try:
        data = crypto.certificates_data(
            fabric.tenant, transport, cipher, fabric.vm.certificates_case
        )
    except LabError as error:
        fabric.complain(f"certificates: {error}")
        return Answer(400, b"the transport certificate cannot be used", TEXT)
    return _document(documents.certificates(fabric.vm, data))


def _health(fabric: Fabric, request: Request) -> Answer:
    found = _posted(fabric, request, "Health")
    if found is None:
        return Answer(400, b"not a health document", TEXT)
    report = {
        "incarnation": found.findtext("GoalStateIncarnation", ""),
        "container_id": found.findtext("Container/ContainerId", ""),
        "instance_id": found.findtext("Container/RoleInstanceList/Role/InstanceId", ""),
        "state": found.findtext("Container/RoleInstanceList/Role/Health/State", ""),
        "substatus": found.findtext("Container/RoleInstanceList/Role/Health/Details/SubStatus", ""),
        "description": found.findtext(
            "Container/RoleInstanceList/Role/Health/Details/Description", ""
        ),
    }
    if report["container_id"] != fabric.vm.container_id:
        return Answer(410, b"ContainerId is stale", TEXT)
    if report["state"] not in ("Ready", "NotReady") or len(report["description"].encode()) > 4096:
        fabric.complain(
            f"health: state {report['state']!r}, description of {len(report['description'])}"
            " characters"
        )
        return Answer(400, b"state", TEXT)
    fabric.keep_health(report)
    headers = (
        {"x-ms-latest-goal-state-incarnation-number": str(fabric.vm.incarnation)}
        if fabric.vm.answers_latest_incarnation
        else {}
    )
    return Answer(200, b"", headers=headers)


def _role_properties(fabric: Fabric, request: Request) -> Answer:
    found = _posted(fabric, request, "RoleProperties")
    if found is None:
        return Answer(400, b"not a role properties document", TEXT)
    if found.findtext("Container/ContainerId", "") != fabric.vm.container_id:
        return Answer(410, b"ContainerId is stale", TEXT)
    instance = found.find("Container/RoleInstances/RoleInstance")
    if instance is None or instance.findtext("Id", "") != fabric.vm.instance_id:
        fabric.complain("role properties: not of this role instance")
        return Answer(400, b"role instance", TEXT)
    fabric.keep_properties(
        {
            item.get("name", ""): item.get("value", "")
            for item in instance.iterfind("Properties/Property")
        }
    )
    return Answer(202)


def _accepted(fabric: Fabric, request: Request) -> Answer:
    return Answer(200)


def _posted(fabric: Fabric, request: Request, root: str) -> ElementTree.Element | None:
    try:
        found = ElementTree.fromstring(request.body)
    except ElementTree.ParseError as error:
        fabric.complain(f"{root}: not XML: {error}")
        return None
    if found.tag != root:
        fabric.complain(f"{root}: the root is {found.tag}")
        return None
    return found


def _document(text: str) -> Answer:
    return Answer(200, text.encode())


_WIRE: tuple[tuple[str, str, str, str, str, Handler], ...] = (
    # method path             comp              type                        target
    # answer
    ("GET", "/", "versions", "", "versions", _versions),
    ("GET", "/machine/", "goalstate", "", "goal_state", _goal_state),
    ("GET", "*", "config", "hostingEnvironmentConfig", "hosting_environment", _hosting_environment),
    ("GET", "*", "config", "sharedConfig", "shared_config", _shared_config),
    ("GET", "*", "config", "extensionsConfig", "extensions_config", _extensions_config),
    ("GET", "*", "config", "fullConfig", "full_config", _full_config),
    ("GET", "*", "certificates", "", "certificates", _certificates),
    ("POST", "/machine", "health", "", "health", _health),
    ("POST", "/machine", "roleProperties", "", "role_properties", _role_properties),
    ("POST", "/machine", "telemetrydata", "", "telemetry", _accepted),
    ("POST", "/machine/", "telemetrydata", "", "telemetry", _accepted),
    ("POST", "/HealthService", "", "", "health_service", _accepted),
)


# ---- HostGAPlugin


def _plugin_versions(fabric: Fabric, request: Request) -> Answer:
    return Answer(200, json.dumps([PLUGIN_VERSION]).encode(), JSON)


def _vm_settings(fabric: Fabric, request: Request) -> Answer:
    return Answer(404, b"not supported", TEXT)


def _artifact(fabric: Fabric, request: Request) -> Answer:
    answer = fabric.blobs.get(request.headers["x-ms-artifact-location"])
    return answer if answer.status == 200 else Answer(502, answer.body, TEXT)


def _status(fabric: Fabric, request: Request) -> Answer:
    try:
        order: dict[str, Any] = json.loads(request.body)
        url = str(order["requestUri"])
        headers = {
            str(item["headerName"]).lower(): str(item["headerValue"]) for item in order["headers"]
        }
        content = base64.b64decode(order.get("content") or "", validate=True)
    except (ValueError, KeyError, TypeError) as error:
        fabric.complain(f"/status: {type(error).__name__}: {error}")
        return Answer(400, b"not a status order", TEXT)
    answer = fabric.blobs.put(url, headers, content)
    if answer.status != 201:
        fabric.complain(f"/status: storage answered {answer.status} {answer.body.decode()}")
        return Answer(502, answer.body, TEXT)
    fabric.keep_status(unquote(urlsplit(url).path), "plugin", headers.get("x-ms-blob-type", "page"))
    return Answer(200)


_CONTAINER = ("x-ms-version", "x-ms-containerid")
_COMMON = (*_CONTAINER, "x-ms-host-config-name")
_PLUGIN: tuple[tuple[str, str, str, tuple[str, ...], Handler], ...] = (
    # method path              target             headers it needs                     answer
    ("GET", "/versions", "plugin_versions", ("x-ms-containerid",), _plugin_versions),
    ("GET", "/health", "plugin_health", (), _accepted),
    ("GET", "/vmSettings", "vm_settings", _COMMON, _vm_settings),
    ("GET", "/extensionArtifact", "artifact", (*_COMMON, "x-ms-artifact-location"), _artifact),
    ("PUT", "/status", "status", _COMMON, _status),
    ("PUT", "/vmAgentLog", "agent_log", _CONTAINER, _accepted),
)


# ---- storage and metadata


def _storage(fabric: Fabric, request: Request) -> Answer:
    # as a proxy is asked
    target = (
        request.path[len(f"http://{STORAGE_HOST}") :]
        if request.path.startswith("http://")
        else request.path
    )
    url = f"{fabric.scheme}://{STORAGE_HOST}{target}"
    if request.method in ("GET", "HEAD"):
        return fabric.blobs.get(url)
    answer = fabric.blobs.put(url, request.headers, request.body)
    if answer.status == 201:
        fabric.keep_status(
            unquote(urlsplit(url).path), "direct", request.headers.get("x-ms-blob-type", "page")
        )
    return answer


def _metadata(request: Request) -> Answer:
    if request.headers.get("metadata", "").lower() != "true":
        return Answer(
            400, b'{"error": "Bad request. Required metadata header not specified"}', JSON
        )
    compute = {
        "location": "labwest",
        "name": "vm1",
        "osType": "Linux",
        "vmId": "22222222-3333-4444-8555-666666666666",
    }
    interface = {
        "macAddress": "000D3A0A0B0C",
        "ipv4": {"ipAddress": [{"privateIpAddress": "10.4.0.4", "publicIpAddress": ""}]},
    }
    whole: dict[str, Any] = {"compute": compute, "network": {"interface": [interface]}}
    kept = compute if request.path.startswith("/metadata/instance/compute") else whole
    return Answer(200, json.dumps(kept).encode(), JSON)
