"""From a CMS message to certificates with their keys: openssl decrypts, the PEM text is cut apart
in memory (spec: wire §2.7.3).
"""

from __future__ import annotations

from pathlib import Path

from waagent.distro.run import Finished
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.certificates import Block, Pair, match_pairs, split_pem
from waagent.workers.certificate_keeper.openssl import Openssl
from waagent.workers.certificate_keeper.transport import CERTIFICATE, KEY

_WHERE = "Certificates"
BLOCKS_LIMIT = 256
# FIPS builds cannot verify the MAC, old builds do not know -nomacver, openssl 3 has RC2 only with
# -legacy
_PFX_VARIANTS: tuple[tuple[str, ...], ...] = (("-nomacver",), (), ("-legacy",))


def open_certificates(cms: bytes, transport: Path, openssl: Openssl) -> tuple[Pair, ...]:
    """The certificates in ``cms``, each with its key if there is one. Raises DocumentError."""
    blocks = split_pem(_unpack_pfx(_decrypt(cms, transport, openssl), openssl))
    if len(blocks) > BLOCKS_LIMIT:
        raise DocumentError(
            f"{len(blocks)} certificates and keys, the limit is {BLOCKS_LIMIT}", _WHERE
        )
    certificates = [
        (block, _public_key(block, openssl)) for block in blocks if block.is_certificate
    ]
    keys = [(block, _public_key(block, openssl)) for block in blocks if block.is_key]
    return match_pairs(certificates, keys)


def _decrypt(cms: bytes, transport: Path, openssl: Openssl) -> bytes:
    """AES128_CBC means OAEP key transport, DES_EDE3_CBC PKCS#1: openssl sees in the message which
    it is.
    """
    finished = openssl.call(
        [
            "cms",
            "-decrypt",
            "-inform",
            "DER",
            "-inkey",
            str(transport / KEY),
            "-recip",
            str(transport / CERTIFICATE),
        ],
        cms,
    )
    if finished.status == 0 and finished.stdout:
        return finished.stdout
    raise DocumentError(
        "the message is not for our transport certificate or damaged (openssl cms:"
        f" {openssl.reason(finished)})",
        _WHERE,
        "none needed, fetched again; it persists if the platform encrypts to another certificate",
    )


def open_password(cms: bytes, transport: Path, openssl: Openssl) -> bytes:
    """The password of a user for a time, as UTF-8; in the message it is UTF-16 with a byte order
    mark. Raises DocumentError.
    """
    try:
        return _decrypt(cms, transport, openssl).decode("utf-16").encode("utf-8")
    except UnicodeError as error:
        raise DocumentError("the password is not UTF-16", "RemoteAccess") from error


def _unpack_pfx(pfx: bytes, openssl: Openssl) -> str:
    """PEM text with keys in clear; it stays in memory."""
    finished: Finished | None = None
    for variant in _PFX_VARIANTS:
        finished = openssl.call(["pkcs12", "-nodes", "-passin", "pass:", *variant], pfx)
        if finished.status == 0 and b"-----BEGIN" in finished.stdout:
            return finished.stdout.decode("ascii", "replace")
    reason = openssl.reason(finished) if finished is not None else ""
    raise DocumentError(
        f"the PFX cannot be read (openssl pkcs12: {reason})",
        _WHERE,
        "look whether openssl runs in FIPS mode without 3DES",
    )


def _public_key(block: Block, openssl: Openssl) -> str:
    """The public key as text, equal for equal keys; empty when openssl cannot tell."""
    argv = ["pkey", "-pubout"] if block.is_key else ["x509", "-noout", "-pubkey"]
    finished = openssl.call(argv, block.pem.encode("ascii"))
    return (
        "".join(finished.stdout.decode("ascii", "replace").split()) if finished.status == 0 else ""
    )
