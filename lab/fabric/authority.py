"""A certificate authority of the lab's own, and the certificates that storage shows by TLS: the
good one and those that a client must refuse.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from waagent.lab.fabric.values import STORAGE_HOST

GOOD = "good"
WRONG = ("unknown_authority", "wrong_name", "expired")
"""What can be wrong with a certificate: kinds of faults of the target `tls`."""
_DAYS = 365
_NAMES = (STORAGE_HOST, "*.blob.core.windows.net", "localhost")


class Authority:
    """The authority and one TLS context per certificate. Invariant: all lie in ``folder`` and are
    made once.
    """

    def __init__(self, folder: Path, addresses: tuple[str, ...] = ("127.0.0.1",)) -> None:
        """``addresses``: numeric ones that the good certificate is valid for."""
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = folder / "authority.crt"
        """PEM: what a machine must trust."""
        if not self.certificate.exists():
            _make(folder, addresses)
        self._contexts = {
            name: _context(folder / f"{name}.crt", folder / f"{name}.key")
            for name in (GOOD, *WRONG)
        }

    def context(self, name: str = GOOD) -> ssl.SSLContext:
        """The server's side of TLS with the certificate of that ``name``."""
        return self._contexts[name]


def _make(folder: Path, addresses: tuple[str, ...]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    root = _issue(key, None, "waagent lab authority", (), ())
    stranger_key = ec.generate_private_key(ec.SECP256R1())
    stranger = _issue(stranger_key, None, "somebody else's authority", (), ())
    rows = {
        # name               issuer                    names            days from now
        GOOD: ((key, root), _NAMES, (-1, _DAYS)),
        "unknown_authority": ((stranger_key, stranger), _NAMES, (-1, _DAYS)),
        "wrong_name": ((key, root), ("elsewhere.example",), (-1, _DAYS)),
        "expired": ((key, root), _NAMES, (-30, -2)),
    }
    for name, (issuer, names, days) in rows.items():
        own = ec.generate_private_key(ec.SECP256R1())
        valid_for = addresses if names == _NAMES else ()
        leaf = _issue(own, issuer, names[0], names, valid_for, days)
        (folder / f"{name}.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        pem = own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (folder / f"{name}.key").touch(mode=0o600)
        (folder / f"{name}.key").write_bytes(pem)
    # last: its presence says that the others are there
    (folder / "authority.crt").write_bytes(root.public_bytes(serialization.Encoding.PEM))


def _issue(
    key: ec.EllipticCurvePrivateKey,
    issuer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None,
    common_name: str,
    names: tuple[str, ...],
    addresses: tuple[str, ...],
    days: tuple[int, int] = (-1, _DAYS),
) -> x509.Certificate:
    """One certificate; without ``issuer`` an authority that signs itself."""
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer_key = issuer[0] if issuer is not None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[1].subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=issuer is None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if names:
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(item)) for item in addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    return context
