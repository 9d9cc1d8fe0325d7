"""The instance metadata service: `GET http://169.254.169.254/metadata/...` with its rules.

Documentation: Azure Instance Metadata Service for virtual machines (learn.microsoft.com). A request
needs the header `Metadata: true`, must not have come through a proxy, and must name an api-version
that is known; fields appear from the version on in which they were introduced.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from waagent.lab.fabric.http import Request
from waagent.lab.fabric.values import JSON, TEXT, Answer

if TYPE_CHECKING:
    from waagent.lab.fabric.fabric import Fabric

VERSIONS = (
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-08-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
)
MAC = "000D3A0A0B0C"
_SUBSCRIPTION = "33333333-4444-4555-8666-777777777777"
_RESOURCE = (
    f"/subscriptions/{_SUBSCRIPTION}/resourceGroups/lab/providers/Microsoft.Compute/"
    "virtualMachines/vm1"
)
_COMPUTE: tuple[tuple[str, str, Any], ...] = (
    # since       field                  value
    ("2017-04-02", "location", "labwest"),
    ("2017-04-02", "name", "vm1"),
    ("2017-04-02", "offer", "debian-12"),
    ("2017-04-02", "osType", "Linux"),
    ("2017-04-02", "platformFaultDomain", "0"),
    ("2017-04-02", "platformUpdateDomain", "0"),
    ("2017-04-02", "publisher", "Debian"),
    ("2017-04-02", "sku", "12-gen2"),
    ("2017-04-02", "version", "0.20261101.1"),
    ("2017-04-02", "vmId", "22222222-3333-4444-8555-666666666666"),
    ("2017-04-02", "vmSize", "Standard_D2s_v5"),
    ("2017-08-01", "placementGroupId", ""),
    ("2017-08-01", "resourceGroupName", "lab"),
    ("2017-08-01", "subscriptionId", _SUBSCRIPTION),
    ("2017-08-01", "tags", "owner:lab;purpose:test"),
    ("2017-12-01", "vmScaleSetName", ""),
    ("2017-12-01", "zone", ""),
    ("2018-04-02", "plan", {"name": "", "product": "", "publisher": ""}),
    ("2018-04-02", "provider", "Microsoft.Compute"),
    ("2018-04-02", "publicKeys", []),
    ("2018-10-01", "azEnvironment", "AzurePublicCloud"),
    ("2018-10-01", "customData", ""),
    ("2019-03-11", "resourceId", _RESOURCE),
    (
        "2019-06-01",
        "storageProfile",
        {
            "dataDisks": [],
            "imageReference": {"id": "", "offer": "debian-12", "publisher": "Debian"},
            "osDisk": {"name": "vm1_OsDisk_1", "osType": "Linux", "caching": "ReadWrite"},
            "resourceDisk": {"size": "16384"},
        },
    ),
    (
        "2019-06-04",
        "tagsList",
        [{"name": "owner", "value": "lab"}, {"name": "purpose", "value": "test"}],
    ),
    ("2020-06-01", "isHostCompatibilityLayerVm", "false"),
    (
        "2020-06-01",
        "securityProfile",
        {"secureBootEnabled": "false", "virtualTpmEnabled": "false"},
    ),
    ("2020-09-01", "licenseType", ""),
    ("2020-12-01", "evictionPolicy", ""),
    ("2020-12-01", "priority", ""),
    ("2021-01-01", "userData", ""),
    ("2021-03-01", "virtualMachineScaleSet", {"id": ""}),
    ("2021-10-01", "extendedLocation", {"name": "", "type": ""}),
    ("2021-11-15", "host", {"id": ""}),
)
_OS_PROFILE_SINCE = "2020-07-15"
_EXTENDED_SINCE = "2021-03-01"
"""From here on osProfile comes only with `extended=true`."""


def answer(fabric: Fabric, request: Request) -> Answer:
    """What the service says to ``request``."""
    path, _, query = request.path.partition("?")
    words = parse_qs(query, keep_blank_values=True)
    refused = _refused(fabric, request, path, words)
    if refused is not None:
        return refused
    if path == "/metadata/versions":
        return _as_json({"apiVersions": list(VERSIONS)})
    names = [name for name in path.split("/") if name][1:]
    found: Any = {"instance": instance(fabric, words)}
    for name in names:
        inside = found.get(name) if isinstance(found, dict) else _item(found, name)
        if inside is None:
            return _error(404, "Not found")
        found = inside
    if words.get("format") == ["text"]:
        if isinstance(found, (dict, list)):
            return Answer(200, "\n".join(_listing(found)).encode(), TEXT)
        return Answer(200, str(found).encode(), TEXT)
    if not isinstance(found, (dict, list)):
        return _error(400, "Bad request. The format is not supported for this request")
    return _as_json(found)


def instance(fabric: Fabric, words: dict[str, list[str]]) -> dict[str, Any]:
    """The whole `instance` as of the api-version that is asked for."""
    version = words.get("api-version", [VERSIONS[-1]])[0]
    compute = {name: value for since, name, value in _COMPUTE if since <= version}
    is_extended = words.get("extended") == ["true"] or version < _EXTENDED_SINCE
    if version >= _OS_PROFILE_SINCE and is_extended:
        compute["osProfile"] = {
            "adminUsername": "azureuser",
            "computerName": "vm1",
            "disablePasswordAuthentication": "true",
        }
    compute.update(fabric.vm.compute)
    interface = {
        "ipv4": {
            "ipAddress": [{"privateIpAddress": "10.4.0.4", "publicIpAddress": ""}],
            "subnet": [{"address": "10.4.0.0", "prefix": "24"}],
        },
        "ipv6": {"ipAddress": []},
        "macAddress": MAC,
    }
    return {"compute": compute, "network": {"interface": [interface]}}


def _refused(
    fabric: Fabric, request: Request, path: str, words: dict[str, list[str]]
) -> Answer | None:
    if request.method != "GET":
        fabric.complain(f"metadata: {request.method} {path}")
        return _error(405, "Method not allowed")
    if request.headers.get("metadata", "").lower() != "true":
        fabric.complain("metadata: header Metadata is missing")
        return _error(400, "Bad request. Required metadata header not specified")
    if "x-forwarded-for" in request.headers:
        fabric.complain("metadata: the request came through a proxy")
        return _error(400, "Bad request. Requests with X-Forwarded-For are not supported")
    if path == "/metadata/versions":
        return None
    if words.get("api-version", [""])[0] not in VERSIONS:
        fabric.complain(f"metadata: api-version is {words.get('api-version')}")
        text = "Bad request. api-version is invalid or was not specified in the request."
        return _error(400, text, {"newest-versions": list(VERSIONS[-3:][::-1])})
    return None


def _item(found: Any, name: str) -> Any:
    is_there = isinstance(found, list) and name.isdigit() and int(name) < len(found)
    return found[int(name)] if is_there else None


def _listing(found: Any) -> list[str]:
    names = found.items() if isinstance(found, dict) else enumerate(found)
    return [f"{name}/" if isinstance(value, (dict, list)) else str(name) for name, value in names]


def _as_json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), JSON)


def _error(status: int, text: str, more: dict[str, Any] | None = None) -> Answer:
    return Answer(status, json.dumps({"error": text, **(more or {})}).encode(), JSON)
