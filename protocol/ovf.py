"""`ovf-env.xml` of the boot DVD: what the customer asked for at the VM's creation, as one typed
value.

Names are matched by namespace and local name, never by prefix; sections may nest deeper than
documented (as the predecessor allows). Two host names or two users are refused, since nobody can
tell which is meant; any other odd detail is passed over and told in ``findings``, because it must
not cost the VM. Source: spec/provisioning.md §2.4, §2.5, §3. Loads lxml: import it only where a
document is read.
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
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


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
    """The key's text as it was sent, which may hold several keys on several lines; or empty."""


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
    keys_sent: int = 0
    """How many PublicKey elements there are, those that hold no key included."""
    key_pairs: tuple[KeyPair, ...] = ()
    custom_data: Secret | None = None
    """Base64 text as it stands in the document, without white space; None when there is none."""
    provision_guest_agent: bool = True
    preprovisioned: bool = False
    """A VM of a pool: its identity is not final (§3.4)."""
    version: str = "1.0"
    findings: tuple[str, ...] = ()
    """What is odd in the document and was passed over, each with its place."""


def read_ovf(data: bytes, where: str = FILE_NAME) -> ProvisioningRequest:
    """The request in ``data``. Raises OvfError, whatever ``data`` is; its text never contains a
    secret.
    """
    root = _root(data, where)
    section, version = _provisioning_section(root, where)
    reader = _Reader(where)
    platform = reader.one(root, "PlatformSettingsSection")
    return ProvisioningRequest(
        host_name=_required(section, "HostName", where),
        user_name=_required(section, "UserName", where),
        password=reader.secret(section, "UserPassword"),
        disable_password_login=reader.flag(section, "DisableSshPasswordAuthentication"),
        public_keys=reader.public_keys(section),
        keys_sent=sum(1 for _ in section.iter(f"{{{WA}}}PublicKey")),
        key_pairs=reader.key_pairs(section),
        custom_data=reader.custom_data(section),
        provision_guest_agent=reader.flag(platform, "ProvisionGuestAgent") is not False,
        preprovisioned=reader.flag(platform, "PreprovisionedVm") is True,
        version=version,
        findings=tuple(reader.findings),
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
    if not data.strip():
        raise OvfError("the document is empty", where, "recreate the VM, or its ISO image")
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
        version = _text(section.find(f".//{{{WA}}}Version")) or "1.0"
        if version.partition(".")[0].strip() == "1":
            return section, version
        seen.append(version[:20])
    raise OvfError(
        f"ProvisioningSection has version {', '.join(seen)}, this agent knows 1",
        where,
        "install a newer agent",
    )


def _text(element: Element | None) -> str:
    return _raw_text(element).strip()


def _raw_text(element: Element | None) -> str:
    if element is None:
        return ""
    return "".join(str(part) for part in element.itertext())


def _required(section: Element, name: str, where: str) -> str:
    """The one value of what makes this VM this VM. Raises OvfError for none and for several."""
    found = list(section.iter(f"{{{WA}}}{name}"))
    values = {_text(element) for element in found}
    if len(values) > 1:
        raise OvfError(
            f"{name} stands {len(found)} times", f"{where}:{found[1].sourceline}", "send it once"
        )
    value = values.pop() if values else ""
    if not value:
        raise OvfError(f"{name} is missing or empty", where, "create the VM with it")
    return value


class _Reader:
    """Reads what may be absent. Invariant: nothing here raises; what is odd is in ``findings``."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.findings: list[str] = []

    def one(self, parent: Element | None, name: str) -> Element | None:
        """The first element of that name."""
        if parent is None:
            return None
        found = list(parent.iter(f"{{{WA}}}{name}"))
        if len(found) > 1:
            self._note(f"{name} stands {len(found)} times, the first one counts", found[1])
        return found[0] if found else None

    def secret(self, section: Element, name: str) -> Secret | None:
        """A value as it stands, blanks included."""
        value = _raw_text(self.one(section, name))
        return Secret(value) if value else None

    def custom_data(self, section: Element) -> Secret | None:
        """Base64 text without white space."""
        value = "".join(_raw_text(self.one(section, "CustomData")).split())
        return Secret(value) if value else None

    def flag(self, section: Element | None, name: str) -> bool | None:
        """True, False, or None when it is not said."""
        element = self.one(section, name)
        value = _text(element).lower()
        if element is None or not value:
            return None
        if value not in _FLAGS:
            self._note(f"{name} is {value[:20]!r}, neither true nor false: not honoured", element)
            return None
        return _FLAGS[value]

    def public_keys(self, section: Element) -> tuple[PublicKey, ...]:
        """Each with its text or a fingerprint; what has neither is no key."""
        keys = []
        for element in self._group(section, "PublicKey"):
            fingerprint, value = self._fingerprint(element), _text(self.one(element, "Value"))
            if fingerprint or value:
                keys.append(PublicKey(_text(self.one(element, "Path")), fingerprint, value))
            else:
                self._note("PublicKey has neither Value nor Fingerprint: no key of it", element)
        return tuple(keys)

    def key_pairs(self, section: Element) -> tuple[KeyPair, ...]:
        """Each with its fingerprint."""
        pairs = []
        for element in self._group(section, "KeyPair"):
            fingerprint = self._fingerprint(element)
            if fingerprint:
                pairs.append(KeyPair(_text(self.one(element, "Path")), fingerprint))
            else:
                self._note("KeyPair has no Fingerprint: it is not deployed", element)
        return tuple(pairs)

    def _group(self, section: Element, name: str) -> list[Element]:
        found = list(section.iter(f"{{{WA}}}{name}"))
        if len(found) > _KEYS_LIMIT:
            text = f"{len(found)} {name} elements, the first {_KEYS_LIMIT} are taken"
            self._note(text, found[_KEYS_LIMIT])
        return found[:_KEYS_LIMIT]

    def _fingerprint(self, element: Element) -> str:
        child = self.one(element, "Fingerprint")
        value = "".join(_text(child).upper().replace(":", "").split())
        if child is not None and value and _FINGERPRINT.match(value) is None:
            text = f"Fingerprint is {value[:50]!r}, not 40 hexadecimal digits (SHA-1): not used"
            self._note(text, child)
            return ""
        return value

    def _note(self, text: str, element: Element) -> None:
        self.findings.append(f"{text}: {self._where}:{element.sourceline}")
