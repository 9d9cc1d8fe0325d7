"""Certificates and keys as files that handlers read by thumbprint: <lib>/<THUMBPRINT>.crt and .prv
(spec: extensions §2.1).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from waagent.distro.files import write_atomic
from waagent.protocol.base.log import Log
from waagent.protocol.bus.topics import CertificatesPresent
from waagent.protocol.wire.certificates import Pair


def write_pairs(library: Path, pairs: Iterable[Pair], log: Log) -> CertificatesPresent:
    """Each certificate, and its key before it, 0600, whole or not at all; what is there already is
    not written again.
    """
    thumbprints: list[str] = []
    with_keys: list[str] = []
    for pair in pairs:
        if pair.key is not None:
            _write(library / f"{pair.thumbprint}.prv", pair.key.pem, log)
            with_keys.append(pair.thumbprint)
        _write(library / f"{pair.thumbprint}.crt", pair.certificate.pem, log)
        thumbprints.append(pair.thumbprint)
    return CertificatesPresent(tuple(thumbprints), tuple(with_keys))


def _write(path: Path, text: str, log: Log) -> None:
    data = text.encode("ascii")
    if (
        not path.is_symlink()
        and path.is_file()
        and path.stat().st_mode & 0o777 == 0o600
        and path.read_bytes() == data
    ):
        return
    write_atomic(path, data, mode=0o600)
    log.info("wrote %s", path.name)
