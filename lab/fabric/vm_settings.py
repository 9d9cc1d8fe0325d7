"""The vmSettings document of the HostGAPlugin, made from what the platform knows of the VM."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from waagent.lab.fabric import documents
from waagent.lab.fabric.documents import BlobUrl, Protect
from waagent.lab.fabric.values import Extension, GaFamily, Settings, VirtualMachine


def document(vm: VirtualMachine, protect: Protect, url_of: BlobUrl) -> str:
    """The JSON text, of the FastTrack extensions when there are some, else as ExtensionsConfig."""
    is_fast = vm.fast_track is not None
    extensions = vm.extensions if vm.fast_track is None else vm.fast_track
    made: dict[str, Any] = {
        "hostGAPluginVersion": vm.plugin_software_version,
        "vmSettingsSchemaVersion": "0.0",
        "activityId": documents.ACTIVITY_ID,
        "correlationId": documents.CORRELATION_ID,
        "inSvdSeqNo": vm.incarnation,
        "certificatesRevision": 0,
        "extensionsLastModifiedTickCount": vm.fast_track_ticks if is_fast else vm.created_on_ticks,
        "extensionGoalStatesSource": "FastTrack" if is_fast else "Fabric",
        "onHold": bool(vm.on_hold),
        "inVMMetadata": {
            "subscriptionId": "33333333-4444-4555-8666-777777777777",
            "resourceGroupName": "lab",
            "vmName": vm.vm_name.lstrip("_"),
            "location": "labwest",
            "vmId": "22222222-3333-4444-8555-666666666666",
            "vmSize": "Standard_D2s_v5",
            "osType": "Linux",
        },
        "requiredFeatures": [{"name": name} for name in vm.required_features],
        "gaFamilies": [_family(family, url_of) for family in vm.ga_families],
        "extensionGoalStates": [_extension(item, protect, url_of) for item in extensions],
    }
    if vm.with_status_blob:
        made["statusUploadBlob"] = {
            "statusBlobType": vm.status_blob_type,
            "value": url_of(documents.STATUS_PATH),
        }
    return json.dumps(_spelled(made, vm.vm_settings_case))


def etag(body: bytes) -> str:
    """A decimal number that changes with the document, unquoted as the platform sends it."""
    return str(int.from_bytes(hashlib.sha256(body).digest()[:8], "big"))


def _family(family: GaFamily, url_of: BlobUrl) -> dict[str, Any]:
    fields = {
        "name": family.name,
        "version": family.version or None,
        "fromVersion": family.from_version or None,
        "isVersionFromRSM": family.is_version_from_rsm,
        "isVMEnabledForRSMUpgrades": family.is_enabled_for_rsm,
        "uris": [url_of(path) for path in documents.agent_manifest_paths(family)],
    }
    return {key: value for key, value in fields.items() if value is not None}


def _extension(extension: Extension, protect: Protect, url_of: BlobUrl) -> dict[str, Any]:
    location, failover, *others = (url_of(path) for path in documents.manifest_paths(extension))
    made: dict[str, Any] = {
        "name": extension.name,
        "version": extension.version,
        "location": location,
        "failoverLocation": failover,
        "additionalLocations": others,
        "state": extension.state,
        "autoUpgrade": False,
        "runAsStartupTask": False,
        "isJson": True,
        "useExactVersion": True,
        "isMultiConfig": extension.multi_config,
    }
    if extension.signature:
        made["encodedSignature"] = extension.signature
    if not extension.settings:
        return made
    made["settingsSeqNo"] = extension.settings[0].sequence
    made["settings"] = [
        _settings(item, extension.multi_config, protect) for item in extension.settings
    ]
    depending = [item for item in extension.settings if item.depends_on or item.dependency_level]
    if depending:
        made["dependsOn"] = [_depends_on(item, extension.multi_config) for item in depending]
    return made


def _settings(settings: Settings, multi_config: bool, protect: Protect) -> dict[str, Any]:
    made: dict[str, Any] = {"publicSettings": json.dumps(settings.public)}
    if settings.protected is not None:
        protected, thumbprint = protect(settings.protected)
        made["protectedSettings"] = protected
        made["protectedSettingsCertThumbprint"] = thumbprint
    if multi_config:
        made["seqNo"] = settings.sequence
        made["extensionName"], made["extensionState"] = settings.name, settings.state
    return made


def _depends_on(settings: Settings, multi_config: bool) -> dict[str, Any]:
    wanted = []
    for item in settings.depends_on:
        handler, _, extension = item.partition("/")
        wanted.append({"handler": handler, **({"extension": extension} if extension else {})})
    name = {"name": settings.name} if multi_config else {}
    return {**name, "dependencyLevel": settings.dependency_level, "dependsOnExtension": wanted}


def _spelled(value: Any, case: str) -> Any:
    """``value`` with its keys in another spelling; texts that hold JSON stay as they are."""
    if isinstance(value, list):
        return [_spelled(item, case) for item in value]
    if not isinstance(value, dict) or case == "camel":
        return value
    change = str.lower if case == "lower" else lambda key: key[:1].upper() + key[1:]
    return {change(key): _spelled(item, case) for key, item in value.items()}
