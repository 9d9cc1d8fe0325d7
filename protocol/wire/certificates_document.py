"""The Certificates document of the WireServer (spec: wire §2.7.2). Loads lxml."""

from __future__ import annotations

import base64
import binascii

from waagent.protocol.base import xml
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire import constants

WHERE = "Certificates"
FORMAT = "Pkcs7BlobWithPfxContents"


def read_certificate_file(data: bytes) -> bytes:
    """The CMS message (DER) in the document; empty when it has none. Raises DocumentError.

    An absent or empty Format is the usual one; any other text raises, because what it holds is
    unknown.
    """
    root = xml.read_xml(
        data, WHERE, limit_bytes=constants.CERTIFICATES_LIMIT_BYTES, root="CertificateFile"
    )
    kind = xml.text_at(root, "Format")
    if kind not in ("", FORMAT):
        raise DocumentError(f"unknown format {kind[:60]!r}, certificates are left out", WHERE)
    try:
        return base64.b64decode("".join(xml.text_at(root, "Data").split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError("Data is not base64", WHERE) from error
