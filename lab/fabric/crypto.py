"""Certificates as the platform makes them: the tenant's own, and the document encrypted to the
transport certificate.

All work is done by openssl(1), because it produces the platform's forms (recipient by subject key
identifier, RSA-OAEP or PKCS#1, PFX with 3DES and SHA-1).
"""

from __future__ import annotations

import base64
import json
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.lab.fabric.values import LabError
from waagent.lab.tools import run_tool

_CIPHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    # name in the header  content cipher   key transport
    "AES128_CBC": ("-aes-128-cbc", ("-keyopt", "rsa_padding_mode:oaep")),
    "DES_EDE3_CBC": ("-des3", ()),
}


class Tenant:
    """The tenant certificate of the VM. Invariant: key and certificate belong together and stay in
    ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.key = folder / "tenant.key"
        self.certificate = folder / "tenant.crt"
        self.chain = folder / "chain.crt"
        if not self.certificate.exists():
            _self_signed(self.key, self.certificate, "/CN=Windows Azure CRP Certificate Generator")
            _self_signed(folder / "chain.key", self.chain, "/CN=CRP")
        self.thumbprint = thumbprint(self.certificate)

    def protect(self, settings: Any) -> str:
        """``settings`` as protectedSettings: base64 of a CMS envelope to the tenant certificate, in
        one line.
        """
        plain = json.dumps(settings).encode()
        envelope = run_tool(
            [
                "openssl",
                "cms",
                "-encrypt",
                "-binary",
                "-outform",
                "DER",
                "-aes-256-cbc",
                self.certificate,
            ],
            stdin=plain,
        )
        return base64.b64encode(envelope).decode()

    def sign(self, package: bytes) -> str:
        """encodedSignature of ``package``: a detached CMS signature by the tenant's key, base64."""
        argv = ["openssl", "cms", "-sign", "-binary", "-outform", "DER", "-md", "sha256"]
        with tempfile.NamedTemporaryFile(prefix="waagent-lab-") as scratch:
            scratch.write(package)
            scratch.flush()
            made = run_tool(
                [*argv, "-in", scratch.name, "-signer", self.certificate, "-inkey", self.key]
            )
        return base64.b64encode(made).decode()

    def pfx(self, case: str = "good") -> bytes:
        """The PFX with an empty password; ``case`` as in VirtualMachine.certificates_case."""
        argv: list[str | Path] = [
            "openssl",
            "pkcs12",
            "-export",
            "-keypbe",
            "PBE-SHA1-3DES",
            "-certpbe",
            "PBE-SHA1-3DES",
            "-macalg",
            "sha1",
            "-iter",
            "2000",
            "-passout",
            "pass:",
            "-inkey",
            self.key,
        ]
        if case == "key_only":
            return run_tool([*argv, "-nocerts"])
        others = self.chain
        if case == "many":
            others = self.folder / "many.crt"
            if not others.exists():
                others.write_bytes(
                    b"".join(_spare(self.folder, number).read_bytes() for number in range(19))
                )
        return run_tool([*argv, "-in", self.certificate, "-certfile", others])


def certificates_data(tenant: Tenant, transport_base64: str, cipher: str, case: str) -> str:
    """The `Data` of the Certificates document: CMS in base64, lines of 64, trailing newline.

    ``transport_base64`` is the header's text: DER in base64. Raises LabError when it is no
    certificate that can be used.
    """
    if case == "empty":
        return ""
    content, padding = _CIPHERS[cipher]
    with tempfile.TemporaryDirectory(prefix="waagent-lab-") as scratch:
        recipient = Path(scratch) / "transport.pem"
        recipient.write_text(_armour(transport_base64), encoding="ascii")
        if case == "wrong_recipient":
            _self_signed(Path(scratch) / "other.key", recipient, "/CN=LinuxTransport")
        envelope = run_tool(
            [
                "openssl",
                "cms",
                "-encrypt",
                "-binary",
                "-outform",
                "DER",
                content,
                "-keyid",
                "-recip",
                recipient,
                *padding,
            ],
            stdin=tenant.pfx(case),
        )
    return "\n".join(textwrap.wrap(base64.b64encode(envelope).decode(), 64)) + "\n"


def encrypted_password(transport_base64: str, password: str) -> str:
    """A just-in-time user's password as the RemoteAccess document has it: UTF-16 with BOM, CMS to
    the transport certificate, base64. Raises LabError for a certificate that cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="waagent-lab-") as scratch:
        recipient = Path(scratch) / "transport.pem"
        recipient.write_text(_armour(transport_base64), encoding="ascii")
        argv = ["openssl", "cms", "-encrypt", "-binary", "-outform", "DER", "-aes-128-cbc"]
        made = run_tool([*argv, recipient], stdin=password.encode("utf-16"))
    return base64.b64encode(made).decode()


def thumbprint(certificate: Path) -> str:
    """SHA-1 of the DER, upper case, no colons: how the platform names a certificate."""
    text = run_tool(
        ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha1"]
    ).decode()
    return text.strip().split("=", 1)[1].replace(":", "").upper()


def cipher_of(headers: Mapping[str, str], known: tuple[str, ...]) -> str | None:
    """The cipher that a request asks for, or None when the platform does not have it; absent means
    AES128_CBC.
    """
    name = headers.get("x-ms-cipher-name", "AES128_CBC")
    return name if name in known and name in _CIPHERS else None


def _armour(der_base64: str) -> str:
    try:
        der = base64.b64decode(der_base64, validate=True)
    except ValueError as error:
        where = "x-ms-guest-agent-public-x509-cert"
        raise LabError(
            "the transport certificate is not base64", where, "send the DER in one line"
        ) from error
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])


def _spare(folder: Path, number: int) -> Path:
    certificate = folder / f"spare-{number}.crt"
    _self_signed(folder / f"spare-{number}.key", certificate, f"/CN=spare-{number}")
    return certificate


def _self_signed(key: Path, certificate: Path, subject: str) -> None:
    run_tool(
        [
            "openssl",
            "req",
            "-x509",
            "-nodes",
            "-subj",
            subject,
            "-days",
            "730",
            "-newkey",
            "rsa:2048",
            "-keyout",
            key,
            "-out",
            certificate,
        ]
    )
