"""Certificates and keys as PEM text: cut apart, named by thumbprint, matched by public key (spec:
wire §2.7.3).

Standard library only; what needs a cipher is openssl's work, in certificate_keeper.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.records import Record

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----\s*([A-Za-z0-9+/=\s]*?)-----END \1-----")


class Block(Record):
    """One PEM block, without the text between blocks."""

    label: str
    pem: str

    @property
    def is_key(self) -> bool:
        """True for a private key of any kind."""
        return self.label.endswith("PRIVATE KEY")

    @property
    def is_certificate(self) -> bool:
        return self.label == "CERTIFICATE"

    def __repr__(self) -> str:
        return f"Block({self.label!r}, ***)"


def split_pem(text: str) -> tuple[Block, ...]:
    """The blocks in order of the text; "Bag Attributes" between them are dropped."""
    blocks: list[Block] = []
    for match in _BLOCK.finditer(text):
        base64_text = "".join(match.group(2).split())
        lines = "\n".join(
            base64_text[start : start + 64] for start in range(0, len(base64_text), 64)
        )
        blocks.append(
            Block(
                match.group(1),
                f"-----BEGIN {match.group(1)}-----\n{lines}\n-----END {match.group(1)}-----\n",
            )
        )
    return tuple(blocks)


def der_base64(pem: str) -> str:
    """The first certificate of ``pem`` as base64 in one line, as the request header wants it.
    Raises DocumentError.
    """
    for block in split_pem(pem):
        if block.is_certificate:
            return "".join(block.pem.splitlines()[1:-1])
    raise DocumentError(
        "no certificate in it", "transport certificate", "remove <lib>/transport, it is made again"
    )


def thumbprint(certificate: Block) -> str:
    """Upper-case SHA-1 of the certificate's DER. Raises DocumentError when it is not base64."""
    import base64
    import hashlib  # loads libcrypto (4 MiB), which the resident fabric_client never needs

    try:
        der = base64.b64decode("".join(certificate.pem.splitlines()[1:-1]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError("a certificate is not base64", "Certificates") from error
    return hashlib.new("sha1", der, usedforsecurity=False).hexdigest().upper()


class Pair(Record):
    """A certificate and, when there is one, its private key."""

    thumbprint: str
    certificate: Block
    key: Block | None


def match_pairs(
    certificates: Iterable[tuple[Block, str]], keys: Iterable[tuple[Block, str]]
) -> tuple[Pair, ...]:
    """Each certificate with its key, found by equal public keys (any text that is equal for equal
    keys; empty never matches).

    A key without certificate is left out; a certificate that occurs twice counts once.
    """
    by_public_key = {public: key for key, public in keys if public}
    pairs: dict[str, Pair] = {}
    for certificate, public in certificates:
        name = thumbprint(certificate)
        pairs.setdefault(
            name, Pair(name, certificate, by_public_key.get(public) if public else None)
        )
    return tuple(pairs.values())
