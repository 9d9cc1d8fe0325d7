"""Request headers, one function a kind of request (spec: wire §2.1, §3)."""

from __future__ import annotations

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


def artifact_headers(
    container_id: str, config_name: str, url: str, manifest_url: str = ""
) -> Headers:
    """GET /extensionArtifact; ``manifest_url`` for packages: where their manifest came from."""
    headers = {**hostplugin_headers(container_id, config_name), "x-ms-artifact-location": url}
    if manifest_url:
        headers["x-ms-artifact-manifest-location"] = manifest_url
    return headers
