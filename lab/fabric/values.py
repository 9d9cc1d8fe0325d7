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


@dataclass(frozen=True)
class Answer:
    """What a server says to one request."""

    status: int
    body: bytes = b""
    content_type: str = "text/xml; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """One set of settings of a handler (spec: wire, ExtensionsConfig)."""

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
    supports_vm_settings: bool = False
