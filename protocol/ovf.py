"""`ovf-env.xml` of the boot DVD: what the customer asked for at the VM's creation, as one typed
value.

Names are matched by namespace and local name, never by prefix; sections may nest deeper than
documented (as the predecessor allows), a value that stands twice is refused. Source:
spec/provisioning.md §2.4, §2.5, §3. Loads lxml: import it only where a document is read.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from lxml import etree

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.secret import Secret
from waagent.protocol.base.xml import Element, local_name, read_xml

FILE_NAME = "ovf-env.xml"
# custom data is at most 64 KiB encoded; the rest of a document has a few KiB
LIMIT_BYTES = 1024 * 1024
OVF = "http://schemas.dmtf.org/ovf/environment/1"
WA = "http://schemas.microsoft.com/windowsazure"
REDACTED = ("UserPassword", "AdminPassword")
_KEYS_LIMIT = 64
_FINGERPRINT = re.compile(r"[0-9A-F]{40}\Z")
_TRUE, _FALSE = "true", "false"


class OvfError(DocumentError):
    """The document cannot be acted on; the text names the place and what to do."""


class NoProvisioningSection(OvfError):
    """A document of this form that is not meant for us: the next disc is tried."""


@dataclass(frozen=True)
class PublicKey:
    """One key that may log in."""

    path: str
    """Where it belongs; `$HOME` stands for the folder of all homes."""
    fingerprint: str = ""
    """SHA-1 of a certificate of the goal state, upper case; empty when the key itself is there."""
    value: str = ""
    """One line in OpenSSH's form, or empty."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate and key of the goal state that the user shall have."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class ProvisioningRequest:
    """What `ovf-env.xml` asks for."""

    host_name: str
    user_name: str
    password: Secret | None = None
    """None: no password was given (a missing and an empty element mean the same)."""
    disable_password_login: bool | None = None
    """None: the document does not say."""
    public_keys: tuple[PublicKey, ...] = ()
    key_pairs: tuple[KeyPair, ...] = ()
    custom_data: Secret | None = None
    """Base64 text as it stands in the document, without white space; None when there is none."""
    provision_guest_agent: bool = True
    preprovisioned: bool = False
    """A VM of a pool: its identity is not final (§3.4)."""
    version: str = "1.0"


def read_ovf(data: bytes, where: str = FILE_NAME) -> ProvisioningRequest:
    """The request in ``data``. Raises OvfError, whatever ``data`` is; its text never contains a
    secret.
    """
    root = _root(data, where)
    section, version = _provisioning_section(root, where)
    platform = _one(root, "PlatformSettingsSection", where)
    return ProvisioningRequest(
        host_name=_required(section, "HostName", where),
        user_name=_required(section, "UserName", where),
        password=_secret(section, "UserPassword", where),
        disable_password_login=_flag(section, "DisableSshPasswordAuthentication", where),
        public_keys=_public_keys(section, where),
        key_pairs=_key_pairs(section, where),
        custom_data=_custom_data(section, where),
        provision_guest_agent=_flag(platform, "ProvisionGuestAgent", where) is not False,
        preprovisioned=_flag(platform, "PreprovisionedVm", where) is True,
        version=version,
    )


def redact_ovf(data: bytes, where: str = FILE_NAME) -> bytes:
    """The document with `*` for every password, whatever its prefix, attributes or CDATA. Raises
    OvfError.
    """
    root = _root(data, where)
    for element in root.iter():
        if local_name(element) in REDACTED:
            for inner in list(element):
                element.remove(inner)
            element.text = "*"
    redacted: bytes = etree.tostring(root, xml_declaration=True, encoding="utf-8")
    return redacted + b"\n"


def decode_custom_data(encoded: Secret) -> bytes:
    """The bytes of custom data. Raises OvfError when the text is not base64."""
    try:
        return base64.b64decode(encoded.reveal(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise OvfError("custom data is not base64", FILE_NAME, "send it base64-encoded") from error


def _root(data: bytes, where: str) -> Element:
    try:
        root = read_xml(_from_first_tag(data), where, limit_bytes=LIMIT_BYTES)
    except DocumentError as error:
        raise OvfError(error.what, error.where, "recreate the VM, or its ISO image") from error
    if root.tag != f"{{{OVF}}}Environment":
        raise OvfError(
            f"root element is {str(root.tag)[:80]!r}", where, f"it must be Environment in {OVF}"
        )
    return root


def _from_first_tag(data: bytes) -> bytes:
    """Without what some writers put in front: a BOM, NULs, stray text."""
    start = data.find(b"<")
    return data[start:] if start > 0 else data


def _provisioning_section(root: Element, where: str) -> tuple[Element, str]:
    """The section of major version 1 and its version."""
    sections = list(root.iter(f"{{{WA}}}ProvisioningSection"))
    if not sections:
        raise NoProvisioningSection(
            "no ProvisioningSection",
            where,
            "this disc is not for the agent, another one is awaited",
        )
    seen = []
    for section in sections:
        version = _text(_one(section, "Version", where)) or "1.0"
        if version.partition(".")[0].strip() == "1":
            return section, version
        seen.append(version[:20])
    raise OvfError(
        f"ProvisioningSection has version {', '.join(seen)}, this agent knows 1",
        where,
        "install a newer agent",
    )


def _one(parent: Element | None, name: str, where: str) -> Element | None:
    if parent is None:
        return None
    found = list(parent.iter(f"{{{WA}}}{name}"))
    if len(found) > 1:
        raise OvfError(
            f"{name} stands {len(found)} times", f"{where}:{found[1].sourceline}", "send it once"
        )
    return found[0] if found else None


def _text(element: Element | None) -> str:
    return _raw_text(element).strip()


def _raw_text(element: Element | None) -> str:
    if element is None:
        return ""
    return "".join(str(part) for part in element.itertext())


def _required(section: Element, name: str, where: str) -> str:
    value = _text(_one(section, name, where))
    if not value:
        raise OvfError(f"{name} is missing or empty", where, "create the VM with it")
    return value


def _secret(section: Element, name: str, where: str) -> Secret | None:
    value = _raw_text(_one(section, name, where))
    return Secret(value) if value else None


def _flag(section: Element | None, name: str, where: str) -> bool | None:
    element = _one(section, name, where)
    value = _text(element).lower()
    if not value:
        return None
    if value in (_TRUE, _FALSE):
        return value == _TRUE
    if name == "ProvisionGuestAgent":
        return True  # any text but `false` changes nothing (§9.4)
    raise OvfError(
        f"{name} is {value[:20]!r}",
        f"{where}:{element.sourceline if element is not None else 0}",
        "write true or false",
    )


def _custom_data(section: Element, where: str) -> Secret | None:
    value = "".join(_raw_text(_one(section, "CustomData", where)).split())
    return Secret(value) if value else None


def _public_keys(section: Element, where: str) -> tuple[PublicKey, ...]:
    keys = []
    for element in _group(section, "PublicKey", where):
        place = f"{where}:{element.sourceline}"
        path = _text(_one(element, "Path", where))
        fingerprint, value = _fingerprint(element, where), _text(_one(element, "Value", where))
        if not fingerprint and not value:
            raise OvfError("PublicKey has neither Value nor Fingerprint", place, "send one of them")
        if "\n" in value or "\r" in value:
            raise OvfError(
                "PublicKey has a Value of several lines", place, "send one PublicKey for each key"
            )
        keys.append(PublicKey(path, fingerprint, value))
    return tuple(keys)


def _key_pairs(section: Element, where: str) -> tuple[KeyPair, ...]:
    pairs = []
    for element in _group(section, "KeyPair", where):
        fingerprint = _fingerprint(element, where)
        if not fingerprint:
            raise OvfError("KeyPair has no Fingerprint", f"{where}:{element.sourceline}", "send it")
        pairs.append(KeyPair(_text(_one(element, "Path", where)), fingerprint))
    return tuple(pairs)


def _group(section: Element, name: str, where: str) -> list[Element]:
    found = list(section.iter(f"{{{WA}}}{name}"))
    if len(found) > _KEYS_LIMIT:
        raise OvfError(
            f"{len(found)} {name} elements, at most {_KEYS_LIMIT} are taken",
            where,
            "send fewer keys",
        )
    return found


def _fingerprint(element: Element, where: str) -> str:
    child = _one(element, "Fingerprint", where)
    value = _text(child).upper()
    if value and _FINGERPRINT.match(value) is None:
        line = child.sourceline if child is not None else 0
        raise OvfError(
            f"Fingerprint is {value[:50]!r}",
            f"{where}:{line}",
            "40 hexadecimal digits are expected (SHA-1)",
        )
    return value
