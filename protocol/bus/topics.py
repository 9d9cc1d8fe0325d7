"""What crosses the bus: one constant per topic, beside it the frozen value it carries.

Topics are `<serving worker>.<noun>`. `to_body` and `from_body` carry a value; unknown keys are
ignored, a missing or wrong one raises ``BodyError``. Requests are desired state: asking again
changes nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from waagent.protocol.base import records
from waagent.protocol.base.records import Record
from waagent.protocol.bus.parts import Part

V = TypeVar("V")

# one handler's settings; above it is a configuration error of that handler
HANDLER_LIMIT_BYTES = 1280 * 1024
STATUS_LIMIT_BYTES = 256 * 1024  # one status event

# values (subscribe)
ENDPOINT = "environment_monitor.endpoint"  # Endpoint
GOAL_STATE = "fabric_client.goal_state"  # GoalStateSummary
# {HostingEnvironmentConfig, SharedConfig}: SHA-256 of what lies below <lib> now
ROLE_DOCUMENTS = "fabric_client.role_documents"
# requests
# {} -> {reachable}: whether uid 0 can connect to the WireServer
REACHABLE = "environment_monitor.reachable"
HANDLER = "fabric_client.handler"  # {name, part} -> HandlerGoal, or that part of a large one
# {name, version} -> PackageFile, or an error whose text starts with its code
PACKAGE = "fabric_client.package"
STATUS = "fabric_client.status"  # ExtensionReport -> {}
HEALTH = "fabric_client.health"  # HealthReport -> {} once the platform has accepted it
PROPERTIES = "fabric_client.properties"  # {fingerprint} -> {} once accepted
TRANSPORT = "certificate_keeper.transport"  # {} -> {certificate: PEM text}
CERTIFICATES = "certificate_keeper.open"  # {cms: DER bytes} -> CertificatesPresent
# {name, data}: a document of the goal state that others look for below <lib> -> {}
DOCUMENT = "certificate_keeper.document"
PASSWORD = "certificate_keeper.password"  # {cms: DER bytes} -> {password: UTF-8 bytes}
REMOTE_USERS = "account_keeper.users"  # RemoteUsers: all there shall be -> {}


class BodyError(ValueError):
    """A body that is not of its topic's shape; the text names the key."""


def to_body(value: Any) -> dict[str, Any]:
    """A value as it crosses: fields of plain types, tuples as arrays, values in it as maps."""
    return records.to_map(value)


def from_body(kind: type[V], body: Mapping[str, Any]) -> V:
    """The value of ``kind`` that ``body`` is; BodyError when a key is missing or of another type
    than its annotation.
    """
    taken: dict[str, Any] = {}
    defaults: Mapping[str, Any] = kind._field_defaults  # type: ignore[attr-defined]  # a Record
    for name, annotation in kind.__annotations__.items():
        if name in body:
            taken[name] = _checked(kind, name, annotation, body[name])
        elif name not in defaults:
            raise BodyError(f"{kind.__name__}: {name} is missing")
    return kind(**taken)


def from_part(body: Mapping[str, Any]) -> Part:
    """`from_body` of a part."""
    return from_body(Part, body)


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "bytes": (bytes,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}


def _checked(owner: type, name: str, kind: str, value: Any) -> Any:
    if kind.startswith("tuple["):
        if not isinstance(value, (list, tuple)):
            raise BodyError(f"{owner.__name__}: {name} is not an array")
        inner = kind[len("tuple[") :].split(",")[0].rstrip("]")
        return tuple(_element(owner, name, inner, item) for item in value)
    return _element(owner, name, kind, value)


def _element(owner: type, name: str, kind: str, value: Any) -> Any:
    nested = globals().get(kind)
    if isinstance(nested, type) and records.is_record(nested):
        if not isinstance(value, Mapping):
            raise BodyError(f"{owner.__name__}: {name} is not a map")
        return from_body(nested, value)
    allowed = _KINDS[kind]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise BodyError(f"{owner.__name__}: {name} is {type(value).__name__}, not {kind}")
    return value


class Endpoint(Record):
    """Where the WireServer is (spec: wire, discovery)."""

    address: str
    source: str
    """route, lease, dhcp, fixed or configured."""


class GoalStateSummary(Record):
    """What every worker may know of a goal state."""

    incarnation: str
    container_id: str
    instance_id: str
    goal_state_id: str
    """`incarnation_N` or `etag_X`: its change makes extensions run again."""
    endpoint: str
    probe_ports: tuple[int, ...] = ()
    handlers: tuple[str, ...] = ()
    """Names of the handlers, in the order of the document; ask HANDLER for each."""
    certificates: tuple[str, ...] = ()
    """Thumbprints that certificate_keeper has written to <lib>."""
    extensions_complete: bool = False
    """The extensions part was fetched and parsed whole: only then may handlers that are not named
    be removed.
    """
    unsupported_features: tuple[str, ...] = ()
    """Required features that this agent does not have: nothing may be executed (code 2001)."""


class Dependency(Record):
    """One dependsOnExtension."""

    handler: str
    extension: str = ""


class ExtensionGoal(Record):
    """One set of settings of a handler."""

    name: str
    """Empty for single-config handlers."""
    sequence: int
    state: str
    """enabled or disabled."""
    public_settings: str
    """JSON text of publicSettings; `null` when absent."""
    protected_settings: str | None = None
    """Base64 CMS as the platform sent it, never decrypted by the agent."""
    certificate_thumbprint: str | None = None
    dependency_level: int = 0
    depends_on: tuple[Dependency, ...] = ()


class HandlerGoal(Record):
    """The desired state of one handler (spec: extensions, desired and recorded state)."""

    name: str
    version: str
    state: str
    """enabled, disabled or uninstall."""
    goal_state_id: str
    multi_config: bool = False
    extensions: tuple[ExtensionGoal, ...] = ()
    """Empty: a handler without settings."""
    error: str = ""
    """Not empty: this handler's part cannot be carried out (code -1), with the text to report."""


class PackageFile(Record):
    """A package in the spool of fabric_client; the runner copies and hashes it itself."""

    file: str
    """File name below /var/cache/waagent, no slash."""
    size_bytes: int
    sha256: str
    uri: str
    """Without its query."""


class ExtensionReport(Record):
    """What the status blob shall say of one extension, or of a handler without settings."""

    handler: str
    version: str
    handler_status: str
    """Ready, NotReady, Installing or Unresponsive; `Gone`: remove the handler from the report."""
    handler_code: int
    handler_message: str
    extension: str = ""
    sequence: int | None = None
    """None: the handler has no settings."""
    status: str | None = None
    """JSON text of the `status` object of settingsStatus, already checked and cut; None: no
    extension status.
    """


class HealthReport(Record):
    """Provisioning health (spec: wire, health)."""

    state: str
    """Ready or NotReady."""
    substatus: str = ""
    description: str = ""


class CertificatesPresent(Record):
    """What certificate_keeper wrote."""

    thumbprints: tuple[str, ...] = ()
    with_keys: tuple[str, ...] = ()


class RemoteUser(Record):
    """One account for a time."""

    name: str
    password: bytes
    """CMS, encrypted to the transport certificate."""
    expires_at: int
    """Seconds since 1970; from then on there is no such account."""


class RemoteUsers(Record):
    """All accounts of this kind; others of it are removed."""

    users: tuple[RemoteUser, ...] = ()
