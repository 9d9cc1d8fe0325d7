"""What the emulated platform keeps and what it says of what it received: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from waagent.protocol.base.errors import ExplainedError

WIRE_PORT = 80
PLUGIN_PORT = 32526
PROTOCOL_VERSION = "2012-11-30"
PLUGIN_VERSION = "2015-09-01"
STORAGE_HOST = "lab.blob.core.windows.net"
SAS = "sv=2019-12-12&sr=b&sig=c2VjcmV0LW9mLXRoZS1sYWI%3D&sp=rw"
"""The query of every blob URL; its `sig` must never be met in a log."""
JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
TLS_PORT = 443
FIRST_TICKS = 638852750771746340
TICKS_PER_S = 10_000_000


class LabError(ExplainedError):
    """Root of what the lab raises: what went wrong, where, and what to do about it."""


class Recorded(NamedTuple):
    """One request that the platform received; header names in lower case."""

    time: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    server: str = "wire"
    """wire, plugin, storage or metadata."""
    status: int = 0
    """What was answered; 0 while nothing was."""
    target: str = ""
    """What was asked for: one of faults.TARGETS, or unknown."""


@dataclass(frozen=True)
class Answer:
    """What a server says to one request."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """One set of settings of a handler."""

    public: Any = None
    """A JSON object, or None."""
    protected: Any = None
    """A JSON object that goes out encrypted to the tenant certificate, or None."""
    sequence: int = 0
    name: str = ""
    """Only for multi-config handlers."""
    state: str = "enabled"
    dependency_level: int = 0
    depends_on: tuple[str, ...] = ()
    """Names of handlers, or `handler/extension`."""


@dataclass(frozen=True)
class Extension:
    """One handler that the platform wants on the VM."""

    name: str
    version: str
    state: str = "enabled"
    package: bytes = b""
    """The zip; empty: the manifest names it, the blob is missing."""
    settings: tuple[Settings, ...] = ()
    """Empty: a handler without settings."""
    multi_config: bool = False
    additional_locations: int = 0
    """How many further places of the manifest are named beside location and failoverlocation."""
    signature: str = ""
    """encodedSignature: base64 of a detached CMS over the package; the word "make" has the fabric
    make one.
    """

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Extension:
        """From a map as it crosses the control socket; ``package`` is a path or bytes, ``settings``
        one map or a list.

        ``public``, ``protected``, ``sequence``, ``depends_on`` directly in the map stand for one
        set of settings.
        """
        values = dict(plain)
        package = values.pop("package", b"")
        if isinstance(package, str):
            with open(package, "rb") as stream:
                package = stream.read()
        settings = values.pop("settings", None)
        short = {
            key: values.pop(key)
            for key in ("public", "protected", "sequence", "depends_on", "dependency_level")
            if key in values
        }
        if settings is None:
            settings = [short] if short else []
        elif isinstance(settings, Mapping):
            settings = [settings]
        made = tuple(item if isinstance(item, Settings) else _settings(item) for item in settings)
        return cls(package=package, settings=made, **values)


@dataclass(frozen=True)
class GaFamily:
    """One family of agent versions (GAFamily of ExtensionsConfig, gaFamilies of vmSettings)."""

    name: str = "Prod"
    version: str = ""
    from_version: str = ""
    is_version_from_rsm: bool | None = None
    is_enabled_for_rsm: bool | None = None
    manifests: int = 2
    """How many places of the family's manifest are named; 0 gives `<Uris />`."""


@dataclass(frozen=True)
class RemoteUser:
    """One just-in-time user of the RemoteAccess document."""

    name: str
    password: str
    """Goes out encrypted to the transport certificate."""
    expires: str
    """`Fri, 05 Jun 2026 14:00:00 UTC`, or something that is no time."""


def _settings(plain: Mapping[str, Any]) -> Settings:
    return Settings(**{**plain, "depends_on": tuple(plain.get("depends_on", ()))})


@dataclass(frozen=True)
class VirtualMachine:
    """What the platform knows of the one VM; a goal state is made from it."""

    incarnation: int = 1
    container_id: str = "c0111111-2222-4333-8444-555555555555"
    instance_id: str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee._vm1"
    config_name: str = (
        "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee.0.aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee.0._vm1.1.xml"
    )
    vm_name: str = "_vm1"
    deployment: str = "lab-deployment"
    probe_ports: tuple[int, ...] = (16001,)
    versions: tuple[str, ...] = ("2015-04-05", PROTOCOL_VERSION, "2011-12-31")
    extensions: tuple[Extension, ...] = ()
    required_features: tuple[str, ...] = ()
    status_blob_type: str = "BlockBlob"
    """BlockBlob, PageBlob, or anything odd."""
    with_status_blob: bool = True
    with_role_instance: bool = True
    with_certificates: bool = True
    with_extensions_config: bool = True
    certificate_format: str = "Pkcs7BlobWithPfxContents"
    ciphers: tuple[str, ...] = ("AES128_CBC", "DES_EDE3_CBC")
    """What the platform is willing to encrypt with."""
    certificates_case: str = "good"
    """good, empty, wrong_recipient, key_only or many (20 certificates)."""
    answers_latest_incarnation: bool = True
    """Whether health answers carry x-ms-latest-goal-state-incarnation-number."""
    ga_families: tuple[GaFamily, ...] = (GaFamily(),)
    remote_users: tuple[RemoteUser, ...] | None = None
    """None: the goal state has no RemoteAccessInfo."""
    on_hold: bool | None = None
    """What the artifacts profile blob says; None: no InVMArtifactsProfileBlob."""
    created_on_ticks: int = FIRST_TICKS
    """When the extensions of ExtensionsConfig were created: 100 ns since 0001-01-01 UTC."""
    supports_vm_settings: bool = True
    """False: GET /vmSettings is answered 404."""
    fast_track: tuple[Extension, ...] | None = None
    """The extensions of a FastTrack goal state; None: vmSettings says the same as ExtensionsConfig,
    source Fabric.
    """
    fast_track_ticks: int = FIRST_TICKS
    plugin_software_version: str = "1.0.8.175"
    """hostGAPluginVersion."""
    vm_settings_case: str = "camel"
    """How keys of vmSettings are spelled: camel, pascal or lower; versions of the host differ."""
    compute: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `compute` that the instance metadata gives another value than usual."""
