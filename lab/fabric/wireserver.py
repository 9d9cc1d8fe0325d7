"""The WireServer, port 80: a table of requests and the function that answers each; what the
platform would refuse is refused and noted as a complaint.

On the storage's and the metadata's address the same port answers for them: Host and path tell.
"""

from __future__ import annotations

import functools
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from waagent.lab.fabric import crypto, documents, metadata, storage, telemetry
from waagent.lab.fabric.http import Request
from waagent.lab.fabric.values import (
    JSON,
    PROTOCOL_VERSION,
    TEXT,
    Answer,
    LabError,
)

if TYPE_CHECKING:
    from waagent.lab.fabric.fabric import Fabric

_HEADERS = {"x-ms-agent-name": "WALinuxAgent", "x-ms-version": PROTOCOL_VERSION}
_XML_TYPES = ("text/xml;charset=utf-8", "text/xml; charset=utf-8")
_WITHOUT_HEADERS = ("versions", "health_service", "health_json")
_DESCRIPTION_LIMIT_BYTES = 4096
_SUBSTATES = {"Ready": ("",), "NotReady": ("Provisioning", "ProvisioningFailed")}
_OBSERVATIONS_LIMIT = 10

Handler = Callable[["Fabric", Request], Answer]


def answer(fabric: Fabric, request: Request) -> tuple[str, Answer]:
    """(target of faults, answer)"""
    if fabric.is_storage(request):
        return "storage", storage.answer(fabric, request)
    path, _, query = request.path.partition("?")
    if path.startswith("/metadata/"):
        return "metadata", metadata.answer(fabric, request)
    words = parse_qs(query)
    comp, kind = words.get("comp", [""])[0], words.get("type", [""])[0]
    for method, wanted_path, wanted_comp, wanted_kind, target, handler in _TABLE:
        if (method, wanted_comp, wanted_kind) == (request.method, comp, kind) and wanted_path in (
            path,
            "*",
        ):
            return target, _checked(fabric, request, target, handler)
    fabric.complain(f"{request.method} {request.path}: no such request on the WireServer")
    return "unknown", Answer(404, b"not found", TEXT)


def _checked(fabric: Fabric, request: Request, target: str, handler: Handler) -> Answer:
    if target not in _WITHOUT_HEADERS:
        for name, value in _HEADERS.items():
            if request.headers.get(name) != value:
                return _refuse(
                    fabric,
                    f"{target}: header {name} is {request.headers.get(name)!r}, not {value!r}",
                )
    given = request.headers.get("content-type")
    if target in ("health", "role_properties", "telemetry") and given not in _XML_TYPES:
        return _refuse(fabric, f"{target}: Content-Type is {given!r}")
    return handler(fabric, request)


def _refuse(fabric: Fabric, text: str, status: int = 400) -> Answer:
    fabric.complain(text)
    return Answer(status, text.encode(), TEXT)


# ---- documents


def _versions(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.versions(fabric.vm))


def _goal_state(fabric: Fabric, request: Request) -> Answer:
    return _document(documents.goal_state(fabric.vm_now(), fabric.base))


def _config(tag: str, fabric: Fabric, request: Request) -> Answer:
    vm = fabric.vm
    refused = _of_another_goal_state(fabric, request, documents.document_targets(vm)[tag])
    if refused is not None:
        return refused
    if tag == "HostingEnvironmentConfig":
        return _document(documents.hosting_environment(vm, fabric.tenant.thumbprint))
    if tag == "SharedConfig":
        return _document(documents.shared_config(vm))
    if tag == "ExtensionsConfig":
        return _document(documents.extensions_config(vm, fabric.protect, fabric.blob_url))
    return _document('<?xml version="1.0"?><FullConfig />')


def _certificates(fabric: Fabric, request: Request) -> Answer:
    wanted = documents.document_targets(fabric.vm)["Certificates"]
    refused = _of_another_goal_state(fabric, request, wanted)
    if refused is not None:
        return refused
    transport = request.headers.get("x-ms-guest-agent-public-x509-cert", "")
    if not transport:
        return _refuse(fabric, "certificates: header x-ms-guest-agent-public-x509-cert is missing")
    cipher = crypto.cipher_of(request.headers, fabric.vm.ciphers)
    if cipher is None:
        return Answer(400, b"cipher not supported", TEXT)
    try:
        data = crypto.certificates_data(
            fabric.tenant, transport, cipher, fabric.vm.certificates_case
        )
    except LabError as error:
        return _refuse(fabric, f"certificates: {error}")
    return _document(documents.certificates(fabric.vm, data))


def _remote_access(fabric: Fabric, request: Request) -> Answer:
    refused = _of_another_goal_state(fabric, request, documents.remote_access_target(fabric.vm))
    if refused is not None:
        return refused
    transport = request.headers.get("x-ms-guest-agent-public-x509-cert", "")
    if not transport:
        return _refuse(fabric, "remote access: header x-ms-guest-agent-public-x509-cert is missing")
    try:
        encrypt = functools.partial(crypto.encrypted_password, transport)
        return _document(documents.remote_access(fabric.vm, encrypt))
    except LabError as error:
        return _refuse(fabric, f"remote access: {error}")


def _of_another_goal_state(fabric: Fabric, request: Request, wanted: str) -> Answer | None:
    """Why this is no document of the goal state that is valid now; None when it is one."""
    if request.path == wanted:
        return None
    if fabric.was_issued(request.path):
        return Answer(410, b"the goal state is stale", TEXT)
    return _refuse(fabric, f"{request.path}: no goal state had this URL, byte for byte")


# ---- reports


def _health(fabric: Fabric, request: Request) -> Answer:
    found = _posted(fabric, request, "Health")
    if found is None:
        return Answer(400, b"not a health document", TEXT)
    role = "Container/RoleInstanceList/Role"
    report = {
        "incarnation": found.findtext("GoalStateIncarnation", ""),
        "container_id": found.findtext("Container/ContainerId", ""),
        "instance_id": found.findtext(f"{role}/InstanceId", ""),
        "state": found.findtext(f"{role}/Health/State", ""),
        "substatus": found.findtext(f"{role}/Health/Details/SubStatus", ""),
        "description": found.findtext(f"{role}/Health/Details/Description", ""),
    }
    if report["container_id"] != fabric.vm.container_id:
        return _stale_container(fabric, "health", report["container_id"])
    wrong = _what_is_wrong_with(fabric, report)
    if wrong:
        return _refuse(fabric, f"health: {wrong}")
    fabric.keep_health(report)
    headers = (
        {"x-ms-latest-goal-state-incarnation-number": str(fabric.vm.incarnation)}
        if fabric.vm.answers_latest_incarnation
        else {}
    )
    return Answer(200, b"", headers=headers)


def _what_is_wrong_with(fabric: Fabric, report: dict[str, str]) -> str:
    if report["instance_id"] != fabric.vm.instance_id:
        return f"InstanceId is {report['instance_id']!r}"
    if not fabric.had_incarnation(report["incarnation"]):
        return f"there was no incarnation {report['incarnation']!r}"
    if report["substatus"] not in _SUBSTATES.get(report["state"], ()):
        return f"State {report['state']!r} with SubStatus {report['substatus']!r}"
    size_bytes = len(report["description"].encode())
    if size_bytes > _DESCRIPTION_LIMIT_BYTES:
        return f"a Description of {size_bytes} bytes"
    return ""


def _health_json(fabric: Fabric, request: Request) -> Answer:
    """The form that azure-init and cloud-init's successors use; it needs no goal state."""
    try:
        report = json.loads(request.body)
        details = report.get("details") or {}
        made = {
            "incarnation": "",
            "container_id": "",
            "instance_id": "",
            "state": str(report["state"]),
            "substatus": str(details.get("subStatus", "")),
            "description": str(details.get("description", "")),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _refuse(fabric, f"health as JSON: {type(error).__name__}: {error}")
    if made["substatus"] not in _SUBSTATES.get(made["state"], ()):
        return _refuse(fabric, f"health as JSON: {made['state']!r} {made['substatus']!r}")
    fabric.keep_health(made)
    return Answer(201)


def _role_properties(fabric: Fabric, request: Request) -> Answer:
    found = _posted(fabric, request, "RoleProperties")
    if found is None:
        return Answer(400, b"not a role properties document", TEXT)
    container = found.findtext("Container/ContainerId", "")
    if container != fabric.vm.container_id:
        return _stale_container(fabric, "role properties", container)
    instance = found.find("Container/RoleInstances/RoleInstance")
    if instance is None or instance.findtext("Id", "") != fabric.vm.instance_id:
        return _refuse(fabric, "role properties: not of this role instance")
    fabric.keep_properties(
        {
            item.get("name", ""): item.get("value", "")
            for item in instance.iterfind("Properties/Property")
        }
    )
    return Answer(202)


def _stale_container(fabric: Fabric, target: str, container: str) -> Answer:
    if not fabric.had_container(container):
        fabric.complain(f"{target}: there was no container {container!r}")
    return Answer(410, b"ContainerId is stale", TEXT)


def _telemetry(fabric: Fabric, request: Request) -> Answer:
    if not fabric.telemetry_rate.admits():
        fabric.complain(
            f"telemetry: more than {telemetry.CALLS} requests in {telemetry.PERIOD_S} s"
        )
        return Answer(429, b"too many requests", TEXT)
    try:
        events = telemetry.events_in(request.body)
    except telemetry.TelemetryError as error:
        return _refuse(fabric, f"telemetry: {error}")
    fabric.keep_events(events)
    return Answer(200)


def _health_service(fabric: Fabric, request: Request) -> Answer:
    try:
        report = json.loads(request.body)
        observations = report["Observations"]
        fits = (report["Api"], report["Version"]) == ("reporttargethealth", "1.0")
        fits = fits and bool(report["Source"]) and len(observations) <= _OBSERVATIONS_LIMIT
        for item in observations:
            sizes = [len(item[key]) for key in ("ObservationName", "Description", "Value")]
            fits = fits and sizes[0] <= 64 and max(sizes[1:]) <= 128
            fits = fits and isinstance(item["IsHealthy"], bool)
    except (ValueError, KeyError, TypeError) as error:
        return _refuse(fabric, f"HealthService: {type(error).__name__}: {error}")
    given = request.headers.get("content-type", "")
    if not fits or given.partition(";")[0] != JSON.partition(";")[0]:
        return _refuse(fabric, f"HealthService: {given!r} {str(report)[:200]}")
    fabric.keep_observations(observations)
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


def _of(tag: str) -> Handler:
    return functools.partial(_config, tag)


_TABLE: tuple[tuple[str, str, str, str, str, Handler], ...] = (
    # method path              comp              type                        target
    # answer
    ("GET", "/", "versions", "", "versions", _versions),
    ("GET", "/machine/", "goalstate", "", "goal_state", _goal_state),
    (
        "GET",
        "*",
        "config",
        "hostingEnvironmentConfig",
        "hosting_environment",
        _of("HostingEnvironmentConfig"),
    ),
    ("GET", "*", "config", "sharedConfig", "shared_config", _of("SharedConfig")),
    ("GET", "*", "config", "extensionsConfig", "extensions_config", _of("ExtensionsConfig")),
    ("GET", "*", "config", "fullConfig", "full_config", _of("FullConfig")),
    ("GET", "*", "certificates", "", "certificates", _certificates),
    ("GET", "*", "remoteaccess", "", "remote_access", _remote_access),
    ("POST", "/machine", "health", "", "health", _health),
    ("POST", "/machine", "roleProperties", "", "role_properties", _role_properties),
    ("POST", "/machine", "telemetrydata", "", "telemetry", _telemetry),
    ("POST", "/machine/", "telemetrydata", "", "telemetry", _telemetry),
    ("POST", "/HealthService", "", "", "health_service", _health_service),
    ("POST", "/provisioning/health", "", "", "health_json", _health_json),
)
