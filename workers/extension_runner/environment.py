"""The environment of a handler's command: the documented table and nothing that leaks from us. Pure
(spec: extensions §3.4).
"""

from __future__ import annotations

from collections.abc import Mapping

from waagent.protocol.wire.constants import WIRESERVER
from waagent.workers.extension_runner.plan import ENABLE, INSTALL, OperationKey

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SNAP = "/snap/bin"
SUPPORTED_FEATURES = '[{"Key": "ExtensionTelemetryPipeline", "Value": "1.0"}]'
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
LOCALES = ("LANG", "LC_ALL")


def command_environment(
    key: OperationKey, folder: str, endpoint: str, ours: Mapping[str, str]
) -> dict[str, str]:
    """Everything the command sees; ``ours`` is the agent's own environment, of which only proxies
    and the locale are handed on.
    """
    environment = {
        "PATH": f"{PATH}:{SNAP}" if SNAP in ours.get("PATH", "").split(":") else PATH,
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/sh",
        "TERM": "dumb",
        "AZURE_GUEST_AGENT_EXTENSION_PATH": folder,
        "AZURE_GUEST_AGENT_EXTENSION_VERSION": key.version,
        "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS": endpoint or WIRESERVER,
        "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": SUPPORTED_FEATURES,
        "ConfigSequenceNumber": str(key.sequence),
    }
    environment.update({name: ours[name] for name in (*PROXIES, *LOCALES) if ours.get(name)})
    if not any(name in environment for name in LOCALES):
        environment["LANG"] = "C.UTF-8"
    if key.extension:
        environment["ConfigExtensionName"] = key.extension
    if key.operation in (INSTALL, ENABLE):
        # no update precedes it in this version
        environment["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] = "NOT_RUN"
    return environment


def shown_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What may stand in a log."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(("AZURE_", "Config"))
    }
