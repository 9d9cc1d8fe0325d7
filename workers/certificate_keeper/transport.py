"""The transport key and certificate: made once, kept, found at the old places too (spec: wire
§2.7.1).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from waagent.distro.paths import Paths
from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.log import Log
from waagent.protocol.wire.certificates import split_pem
from waagent.workers.certificate_keeper.openssl import Openssl

KEY, CERTIFICATE = "TransportPrivate.pem", "TransportCert.pem"
DAYS = "7300"  # made once; its end is not looked at by the platform
_WHERE = "transport certificate"


def ensure_transport(paths: Paths, openssl: Openssl, log: Log) -> str:
    """The certificate as PEM text; both files are made when one is missing or they do not belong
    together.
    """
    folder = paths.transport
    _make_private_folder(folder)
    certificate = _read(folder / CERTIFICATE)
    if certificate is None or not _belong_together(folder, openssl):
        _make(folder, openssl)
        log.info("made the transport certificate file=%s", folder / CERTIFICATE)
        certificate = _read(folder / CERTIFICATE)
    for name in (KEY, CERTIFICATE):
        _link(paths.library / name, Path(folder.name) / name)
    if certificate is None:
        raise DocumentError(
            "openssl made no certificate",
            str(folder / CERTIFICATE),
            "run waagent with -verbose and look at the log",
        )
    return certificate


def _make_private_folder(folder: Path) -> None:
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise DocumentError(
                "is not a folder of ours", str(folder), "remove it, it is made again"
            ) from None
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    return text if any(block.is_certificate for block in split_pem(text)) else None


def _belong_together(folder: Path, openssl: Openssl) -> bool:
    key = openssl.call(["pkey", "-in", str(folder / KEY), "-pubout"])
    certificate = openssl.call(["x509", "-in", str(folder / CERTIFICATE), "-noout", "-pubkey"])
    return (
        key.status == 0
        and certificate.status == 0
        and bool(key.stdout)
        and key.stdout.split() == certificate.stdout.split()
    )


def _make(folder: Path, openssl: Openssl) -> None:
    """Both files beside the final ones, then renamed, the certificate last: a crash leaves a pair
    that is made anew.
    """
    suffix = f".tmp-{os.urandom(4).hex()}"
    key, certificate = folder / f"{suffix}.key", folder / f"{suffix}.crt"
    try:
        request = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-sha256", "-days", DAYS]
        request += ["-subj", "/CN=LinuxTransport", "-keyout", str(key), "-out", str(certificate)]
        finished = openssl.call([*request, "-addext", "subjectKeyIdentifier=hash"])
        if finished.status:
            # before 1.1.1 there is no -addext; its default configuration adds the identifier
            finished = openssl.call(request)
        if finished.status or not key.exists() or not certificate.exists():
            raise DocumentError(
                f"cannot be made ({openssl.reason(finished)})",
                _WHERE,
                "look at free space of Lib.Dir and at openssl",
            )
        for temporary, name in ((key, KEY), (certificate, CERTIFICATE)):
            temporary.chmod(0o600)
            _sync(temporary)
            os.replace(temporary, folder / name)
        _sync(folder)
    finally:
        key.unlink(missing_ok=True)
        certificate.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(path: Path, target: Path) -> None:
    """``path`` leads to ``target``; a file that the predecessor left there is replaced, since its
    certificate is ours no more.
    """
    if path.is_symlink() and os.readlink(path) == str(target):
        return
    temporary = path.with_name(f".tmp-{os.urandom(4).hex()}")
    temporary.symlink_to(target)
    os.replace(temporary, path)
