"""The goal state document and the version document of the WireServer (spec: wire §2.2, §2.3). Loads
lxml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from waagent.protocol.base import xml
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire import constants, urls

_IDENTIFIER = re.compile(r"[\x21-\x7e]{1,256}")
PORTS_LIMIT = 64


class NoRoleInstance(DocumentError):
    """The goal state names no role instance: the platform is about to, ask again soon."""


@dataclass(frozen=True)
class GoalState:
    """One goal state; URLs are reduced to their target on the WireServer, empty when absent."""

    incarnation: str
    container_id: str
    instance_id: str
    config_name: str
    """Empty when absent: then HostGAPlugin requests go without it."""
    probe_ports: tuple[int, ...]
    hosting_environment: str
    shared_config: str
    extensions_config: str
    certificates: str
    remote_access: str


def read_versions(data: bytes) -> bool:
    """True when the WireServer speaks our version, preferred or supported; compared as opaque text.
    Raises DocumentError.
    """
    root = xml.read_xml(
        data, "version document", limit_bytes=constants.VERSIONS_LIMIT_BYTES, root="Versions"
    )
    supported = [
        xml.text_of(item) for item in xml.children(xml.child(root, "Supported"), "Version")
    ]
    return constants.PROTOCOL_VERSION in (xml.text_at(root, "Preferred", "Version"), *supported)


def read_goal_state(data: bytes, endpoint: str, port: int = constants.WIRE_PORT) -> GoalState:
    """The goal state; every URL in it must lead to ``endpoint``. Raises DocumentError,
    NoRoleInstance.
    """
    where = "goal state"
    root = xml.read_xml(data, where, limit_bytes=constants.GOAL_STATE_LIMIT_BYTES, root="GoalState")
    container = xml.child(root, "Container")
    incarnation = _identifier(xml.text_at(root, "Incarnation"), "Incarnation")
    container_id = _identifier(xml.text_at(container, "ContainerId"), "ContainerId")
    role = xml.child(container, "RoleInstanceList", "RoleInstance")
    if role is None:
        raise NoRoleInstance("no RoleInstance", where, "none needed, asked again at once")
    configuration = xml.child(role, "Configuration")

    def target(element: xml.Element | None, name: str) -> str:
        text = xml.text_at(element, name)
        return urls.wire_target(text, endpoint, f"{where}: {name}", port) if text else ""

    config_name = xml.text_at(configuration, "ConfigName")
    return GoalState(
        incarnation=incarnation,
        container_id=container_id,
        instance_id=_identifier(xml.text_at(role, "InstanceId"), "InstanceId"),
        config_name=_identifier(config_name, "ConfigName") if config_name else "",
        probe_ports=_probe_ports(root),
        hosting_environment=target(configuration, "HostingEnvironmentConfig"),
        shared_config=target(configuration, "SharedConfig"),
        extensions_config=target(configuration, "ExtensionsConfig"),
        certificates=target(configuration, "Certificates"),
        remote_access=target(container, "RemoteAccessInfo"),
    )


def _identifier(text: str, name: str) -> str:
    """Opaque, but it goes into headers and bodies: printable ASCII without blanks."""
    if not _IDENTIFIER.fullmatch(text):
        raise DocumentError(
            f"{name} is {'missing' if not text else 'not an identifier'}", "goal state"
        )
    return text


def _probe_ports(root: xml.Element) -> tuple[int, ...]:
    """All ports, each once, in document order; what is no port is left out (spec: wire §2.12)."""
    ports: list[int] = []
    for element in xml.children(xml.child(root, "Machine", "LBProbePorts"), "Port"):
        text = xml.text_of(element)
        if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) < 65536 and int(text) not in ports:
            ports.append(int(text))
    return tuple(ports[:PORTS_LIMIT])
