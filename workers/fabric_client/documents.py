"""The documents of one goal state: fetched from the WireServer and parsed, the identifiers first
(part of transfer).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.xml import read_xml
from waagent.protocol.bus import topics
from waagent.protocol.wire import (
    artifacts_profile,
    constants,
    headers,
    remote_access,
    vm_settings,
)
from waagent.protocol.wire.certificates_document import read_certificate_file
from waagent.protocol.wire.extensions_config import ExtensionsGoal, read_extensions_config
from waagent.protocol.wire.goal_state import (
    GoalState,
    NoRoleInstance,
    read_goal_state,
    read_versions,
)
from waagent.workers.fabric_client import download, plain_http

Send = Callable[..., None]
DOCUMENT_DEADLINE_S = 20.0
PROFILE_LIMIT_BYTES = 1024 * 1024


class Refused(DocumentError):
    """The platform answered with another status than 200."""

    def __init__(self, status: int, where: str) -> None:
        super().__init__(f"status {status}", where)
        self.status = status


def read_goal_state_documents(
    job: Mapping[str, Any], send: Send, connect: plain_http.Connect, plugin: plain_http.Connect
) -> None:
    """Operation goal_state: ids, then each document; a failed one does not keep the others away."""
    if not _read_identifiers(job, send):
        return
    import hashlib  # maps libcrypto, which only this process shall

    goal = read_goal_state(job["body"], job["endpoint"], job["port"])
    goal_state_id = f"incarnation_{goal.incarnation}"
    try:
        extensions = ExtensionsGoal(goal_state_id=goal_state_id, sequence=goal.incarnation)
        if goal.extensions_config:
            data = _fetch(
                job,
                connect,
                goal.extensions_config,
                "ExtensionsConfig",
                constants.EXTENSIONS_LIMIT_BYTES,
            )
            extensions = read_extensions_config(data, goal_state_id)
            if extensions.profile_url:
                where = {**job, "container_id": goal.container_id, "config_name": goal.config_name}
                extensions = _with_hold(extensions, where, plugin)
        send("extensions", **_extensions_body(extensions))
    except DocumentError as error:
        send(
            "failed",
            part="ExtensionsConfig",
            text=f"{error.what}: {error.where}",
            status=getattr(error, "status", 0),
        )
    for name, target in (
        ("HostingEnvironmentConfig", goal.hosting_environment),
        ("SharedConfig", goal.shared_config),
    ):
        if not target:
            continue
        try:
            data = _fetch(job, connect, target, name, constants.SMALL_CONFIG_LIMIT_BYTES)
            read_xml(data, name, limit_bytes=constants.SMALL_CONFIG_LIMIT_BYTES, root=name)
            send("document", name=name, data=data, sha256=hashlib.sha256(data).hexdigest())
        except DocumentError as error:
            send(
                "failed",
                part=name,
                text=f"{error.what}: {error.where}",
                status=getattr(error, "status", 0),
            )


def _read_identifiers(job: Mapping[str, Any], send: Send) -> bool:
    try:
        if job["versions"] is not None and not read_versions(job["versions"]):
            send(
                "failed",
                part="versions",
                text=f"the platform does not speak {constants.PROTOCOL_VERSION}",
                status=0,
            )
            return False
        goal = read_goal_state(job["body"], job["endpoint"], job["port"])
    except NoRoleInstance as error:
        send("failed", part="RoleInstance", text=f"{error.what}: {error.where}", status=0)
        return False
    except DocumentError as error:
        send("failed", part="goal state", text=f"{error.what}: {error.where}", status=0)
        return False
    send("ids", **_identifiers(goal))
    return True


def _identifiers(goal: GoalState) -> dict[str, Any]:
    return {
        "incarnation": goal.incarnation,
        "container_id": goal.container_id,
        "instance_id": goal.instance_id,
        "config_name": goal.config_name,
        "probe_ports": list(goal.probe_ports),
        "certificates": goal.certificates,
        "remote_access": goal.remote_access,
    }


def read_vm_settings_document(job: Mapping[str, Any], send: Send) -> None:
    """Operation vm_settings."""
    try:
        send(
            "extensions", **_extensions_body(vm_settings.read_vm_settings(job["body"], job["etag"]))
        )
    except DocumentError as error:
        send(
            "failed",
            part="vmSettings",
            text=f"{error.what}: {error.where}",
            status=0,
            is_unsupported=isinstance(error, vm_settings.NotSupported),
        )


def _with_hold(
    extensions: ExtensionsGoal, job: Mapping[str, Any], plugin: plain_http.Connect
) -> ExtensionsGoal:
    """With what the artifacts profile says; one that cannot be had or read holds nothing."""
    try:
        data = download.read_small(job, plugin, extensions.profile_url, PROFILE_LIMIT_BYTES)
        is_on_hold = artifacts_profile.read_on_hold(data)
    except DocumentError as error:
        return replace(
            extensions, findings=(*extensions.findings, f"artifacts profile: {error.what}")
        )
    return replace(extensions, is_on_hold=is_on_hold)


def read_remote_access_document(
    job: Mapping[str, Any], send: Send, connect: plain_http.Connect
) -> None:
    """Operation remote_access: the users, their passwords as they came."""
    asked = headers.certificate_headers(job["certificate"], job["cipher"])
    try:
        data = _fetch(
            job, connect, job["target"], "RemoteAccess", constants.GOAL_STATE_LIMIT_BYTES, asked
        )
        users, findings = remote_access.read_remote_access(data)
        send("users", users=[topics.to_body(user) for user in users], findings=list(findings))
    except DocumentError as error:
        send(
            "failed",
            part="RemoteAccess",
            text=f"{error.what}: {error.where}",
            status=getattr(error, "status", 0),
        )


def _extensions_body(extensions: ExtensionsGoal) -> dict[str, Any]:
    return {
        "goal_state_id": extensions.goal_state_id,
        "source": extensions.source,
        "created_ticks": extensions.created_ticks,
        "sequence": extensions.sequence,
        "is_on_hold": extensions.is_on_hold,
        "handlers": [topics.to_body(handler) for handler in extensions.handlers],
        "manifest_urls": {
            item.name.lower(): list(item.manifest_urls) for item in extensions.artifacts
        },
        "unsupported_features": list(extensions.unsupported_features),
        "status_url": extensions.status_url,
        "status_blob_type": extensions.status_blob_type,
        "findings": list(extensions.findings[:16]),
    }


def _fetch(
    job: Mapping[str, Any],
    connect: plain_http.Connect,
    target: str,
    name: str,
    limit_bytes: int,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """One document; a refusal for the moment is asked again twice, 410 never: its URL is stale."""
    address = (job["endpoint"], job["port"])
    where = f"http://{job['endpoint']}:{job['port']} {name}"
    asked = extra or headers.wire_headers()
    for pause_s in (0.2, 1.0, None):
        answer = plain_http.get(
            connect,
            address,
            target,
            asked,
            where,
            limit_bytes=limit_bytes,
            deadline_s=DOCUMENT_DEADLINE_S,
        )
        if answer.status == 200:
            return answer.body
        if answer.status not in (403, 429, 500, 502, 503, 504) or pause_s is None:
            break
        time.sleep(pause_s)
    raise Refused(answer.status, where)


def read_certificates(job: Mapping[str, Any], send: Send, connect: plain_http.Connect) -> None:
    """Operation certificates: the CMS message, encrypted to our transport certificate."""
    asked = headers.certificate_headers(job["certificate"], job["cipher"])
    try:
        data = _fetch(
            job, connect, job["target"], "Certificates", constants.CERTIFICATES_LIMIT_BYTES, asked
        )
        send("cms", data=read_certificate_file(data))
    except DocumentError as error:
        send(
            "failed",
            part="Certificates",
            text=f"{error.what}: {error.where}",
            status=getattr(error, "status", 0),
        )
