"""Request headers, one function a kind of request (spec: wire §2.1, §3)."""

from __future__ import annotations

import os

from waagent.protocol.wire import constants

Headers = dict[str, str]


def wire_headers() -> Headers:
    """H1: every request to the WireServer but the version negotiation, which has none."""
    return {"x-ms-agent-name": constants.AGENT_NAME, "x-ms-version": constants.PROTOCOL_VERSION}


def wire_post_headers() -> Headers:
    """H2: posted XML."""
    return {**wire_headers(), "Content-Type": "text/xml;charset=utf-8"}


def certificate_headers(certificate_base64: str, cipher: str) -> Headers:
    """H1 + H3: documents encrypted to the transport certificate (base64 of its DER, one line)."""
    return {
        **wire_headers(),
        "x-ms-guest-agent-public-x509-cert": certificate_base64,
        "x-ms-cipher-name": cipher,
    }


def hostplugin_headers(container_id: str, config_name: str) -> Headers:
    """What every HostGAPlugin request carries. An absent config name is left out: an empty one is
    not what the host knows.
    """
    headers = {"x-ms-version": constants.HOSTPLUGIN_VERSION, "x-ms-containerid": container_id}
    if config_name:
        headers["x-ms-host-config-name"] = config_name
    return headers


def hostplugin_status_headers(container_id: str, config_name: str) -> Headers:
    """PUT /status."""
    return {**hostplugin_headers(container_id, config_name), "Content-type": "application/json"}


def vm_settings_headers(container_id: str, config_name: str, etag: str) -> Headers:
    """GET /vmSettings; ``etag`` of the document that is known, sent back as it came."""
    headers = {
        **hostplugin_headers(container_id, config_name),
        "x-ms-client-correlationid": new_guid(),
    }
    if etag:
        headers["if-none-match"] = etag
    return headers


def plugin_versions_headers(container_id: str) -> Headers:
    """GET /versions."""
    return {"x-ms-containerid": container_id}


def metadata_headers() -> Headers:
    """The instance metadata service; without it a request is refused."""
    return {"Metadata": "True"}


def json_headers() -> Headers:
    """POST /HealthService, which wants none of the WireServer's."""
    return {"Content-Type": "application/json"}


def agent_log_headers(container_id: str, config_name: str, version: str) -> Headers:
    """PUT /vmAgentLog; the deployment's id is the config name up to its first dot."""
    return {
        "x-ms-version": constants.HOSTPLUGIN_VERSION,
        "x-ms-containerid": container_id,
        "x-ms-vmagentlog-deploymentid": config_name.partition(".")[0],
        "x-ms-client-name": constants.AGENT_NAME,
        "x-ms-client-version": version,
        "x-ms-client-correlationid": new_guid(),
    }


def new_guid() -> str:
    """A random one (RFC 4122, version 4), without the 0.5 MiB of `uuid`."""
    data = bytearray(os.urandom(16))
    data[6], data[8] = data[6] & 0x0F | 0x40, data[8] & 0x3F | 0x80
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def artifact_headers(
    container_id: str,
    config_name: str,
    url: str,
    manifest_url: str = "",
    *,
    is_fast_track: bool = False,
) -> Headers:
    """GET /extensionArtifact; ``manifest_url`` for packages: where their manifest came from."""
    headers = {**hostplugin_headers(container_id, config_name), "x-ms-artifact-location": url}
    if manifest_url:
        headers["x-ms-artifact-manifest-location"] = manifest_url
    if is_fast_track:
        headers["x-ms-verify-from-artifacts-blob"] = "true"
    return headers
