"""sshd's own keys: new ones for a new VM, and their fingerprint. Source: spec/provisioning.md §6.7,
§6.8, trap 27.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from waagent.distro.run import Finished, ToolError, ToolNotFound
from waagent.protocol.base.log import Log
from waagent.workers.provisioner.provisioning_error import ProvisioningError

_KEYGEN_LIMIT_S = 120.0  # RSA on a small VM without entropy
_AUTO = ("rsa", "ecdsa", "ed25519")
_KNOWN = ("rsa", "dsa", "ecdsa", "ed25519")
_PUBLIC_LIMIT_BYTES = 64 * 1024

Run = Callable[..., Finished]


class HostKeyError(ProvisioningError):
    """No host key could be made."""


@dataclass(frozen=True)
class Fingerprint:
    """Of one public host key."""

    md5: str
    """32 hexadecimal digits, the form the platform has always been sent."""
    sha256: str
    """As `ssh` shows it."""
    file: str


def has_host_keys(folder: Path) -> bool:
    """Whether sshd would find a key."""
    return any(folder.glob("ssh_host_*_key"))


def renew_host_keys(folder: Path, kind: str, run: Run, log: Log) -> bool:
    """Replace all host keys by new ones of ``kind`` (`auto`: all common types). False when there is
    no ssh-keygen.

    The new ones are made aside; only then the old ones go. Raises HostKeyError.
    """
    kinds = _AUTO if kind == "auto" else (kind if kind in _KNOWN else "rsa",)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for left in folder.glob(".waagent-keys-*"):
        shutil.rmtree(left)  # of a run that was killed
    aside = Path(tempfile.mkdtemp(prefix=".waagent-keys-", dir=folder))
    try:
        made = _generate(aside, kinds, run)
        for old in folder.glob("ssh_host_*key*"):
            if old.name not in made and (old.is_file() or old.is_symlink()):
                old.unlink()
        for name in made:
            # readable by all as sshd's own are, whatever umask init gave us
            os.chmod(aside / name, 0o644 if name.endswith(".pub") else 0o600)
            os.replace(aside / name, folder / name)
    except ToolNotFound:
        log.warning("no ssh-keygen: host keys stay as they are")
        return False
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    log.info("made new SSH host keys types=%s", ",".join(kinds))
    return True


def _generate(folder: Path, kinds: tuple[str, ...], run: Run) -> list[str]:
    problems = []
    for kind in kinds:
        try:
            run(
                [
                    "ssh-keygen",
                    "-q",
                    "-N",
                    "",
                    "-t",
                    kind,
                    "-f",
                    str(folder / f"ssh_host_{kind}_key"),
                ],
                deadline_s=_KEYGEN_LIMIT_S,
            )
        except ToolNotFound:
            raise
        except ToolError as error:
            problems.append(f"{kind}: {error.where}")  # FIPS builds refuse some types
    made = sorted(path.name for path in folder.iterdir())
    if not made:
        raise HostKeyError(
            "no SSH host key could be made",
            "; ".join(problems)[:300],
            "choose another Provisioning.SshHostKeyPairType",
        )
    return made


def fingerprint_of(folder: Path, kind: str) -> Fingerprint | None:
    """Of the key of that type, else of any that is there; None without one."""
    wanted = folder / f"ssh_host_{'rsa' if kind == 'auto' else kind}_key.pub"
    for file in [wanted, *sorted(folder.glob("ssh_host_*_key.pub"))]:
        try:
            with file.open("rb") as stream:
                blob = public_blob(stream.read(_PUBLIC_LIMIT_BYTES))
        except OSError:
            continue
        if blob is not None:
            sha256 = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")
            return Fingerprint(
                hashlib.md5(blob, usedforsecurity=False).hexdigest(), f"SHA256:{sha256}", str(file)
            )
    return None


def public_blob(line: bytes) -> bytes | None:
    """The key's bytes in a line of OpenSSH's form; None when it is none."""
    words = line.split()
    if len(words) < 2:
        return None
    try:
        return base64.b64decode(words[1], validate=True) or None
    except (binascii.Error, ValueError):
        return None
