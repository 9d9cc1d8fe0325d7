"""The environment of a handler's command: the documented table and nothing that leaks from us. Pure
(spec: extensions §3.4).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from waagent.protocol.wire.constants import WIRESERVER
from waagent.workers.extension_runner.handler_journal import Outcome
from waagent.workers.extension_runner.plan import (
    DISABLE,
    ENABLE,
    INSTALL,
    UNINSTALL,
    OperationKey,
    Run,
)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SNAP = "/snap/bin"
SUPPORTED_FEATURES = "[]"  # nobody sends handlers' events on: `ExtensionTelemetryPipeline` is not
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
NOT_RUN = "NOT_RUN"
NOFILE = "WAAGENT_NOFILE"


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
    handed_on = {name: value for name, value in ours.items() if _is_handed_on(name) and value}
    environment.update(handed_on)
    if key.extension:
        environment["ConfigExtensionName"] = key.extension
    return environment


def _is_handed_on(name: str) -> bool:
    """Proxies, and the locale as init set it: none is ever set for a handler."""
    return name in PROXIES or name == "LANG" or name.startswith("LC_")


def update_environment(step: Run, outcomes: Iterable[Outcome]) -> dict[str, str]:
    """What INSTALL, ENABLE and UPDATE are told of an update: how the old version's commands ended
    in this goal state, and between which versions it goes.
    """
    key = step.key
    mine = [outcome for outcome in outcomes if outcome.goal_state_id == key.goal_state_id]
    environment = {}
    if key.operation in (INSTALL, ENABLE):
        ended = [outcome for outcome in mine if outcome.operation == UNINSTALL]
        is_told = ended and (step.settings is not None or key.operation == INSTALL)
        environment["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] = (
            _exit_code(ended[-1]) if is_told else NOT_RUN
        )
    if step.update is not None:
        old, new = step.update
        environment["AZURE_GUEST_AGENT_UPDATING_FROM_VERSION"] = old
        environment["VERSION"] = new
        disabled = {
            outcome.extension: _exit_code(outcome)
            for outcome in mine
            if outcome.operation == DISABLE and outcome.version == old
        }
        if key.extension:
            listed = [
                {"extensionName": name, "exitCode": disabled.get(name, NOT_RUN)}
                for name in dict.fromkeys((*step.extensions, *disabled))
            ]
            environment["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS"] = (
                json.dumps(listed)
            )
        else:
            environment["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"] = disabled.get("", NOT_RUN)
    return environment


def _exit_code(outcome: Outcome) -> str:
    """Of a command that was killed at its limit, or by a signal, the error code stands there."""
    if outcome.exit_code is not None and not outcome.timed_out:
        return str(outcome.exit_code)
    return str(outcome.code)


def shown_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What may stand in a log."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(("AZURE_", "Config"))
    }


def service_nofile(ours: Mapping[str, str]) -> tuple[int, int]:
    """Soft and hard RLIMIT_NOFILE that init gave the service, as the zygote noted them."""
    soft, _, hard = ours.get(NOFILE, "").partition(":")
    return (int(soft), int(hard)) if soft.isdecimal() and hard.isdecimal() else (1024, 524288)
