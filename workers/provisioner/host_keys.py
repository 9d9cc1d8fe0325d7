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
from dataclasses import dataclass
from pathlib import Path

from waagent.distro import programs
from waagent.distro.run import tool_environment
from waagent.protocol.base.log import Log
from waagent.workers.provisioner.provisioning_error import ProvisioningError

KEYGEN_LIMIT_S = 120.0  # RSA on a small VM without entropy
_AUTO = ("rsa", "ecdsa", "ed25519")
_ASIDE = ".waagent-keys-"
_SAID_BYTES = 4096
_PUBLIC_LIMIT_BYTES = 64 * 1024


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


class Making:
    """ssh-keygen at work, while others go on. Invariant: the new keys are made aside, and nothing
    of the old ones changes before `take_over`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        """Begin to make keys of ``kind`` (`auto`: all common types) for ``folder``."""
        self._folder = folder
        self._is_auto = kind == "auto"
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for left in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(left)  # of a run that was killed
        self._aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=folder))
        self.is_missing = False
        """There is no ssh-keygen."""
        self._programs = self._start(_AUTO if self._is_auto else (kind,))

    def is_over(self) -> bool:
        """Whether nothing is being made any more. Where the wanted type cannot be made the others
        are tried.
        """
        if any(program.poll() is None for program in self._programs.values()):
            return False
        if self.is_missing or self._is_auto or any(self._aside.iterdir()):
            return True
        self._is_auto = True
        self._programs.update(self._start(tuple(k for k in _AUTO if k not in self._programs)))
        return False

    def take_over(self, log: Log) -> bool:
        """Put the new keys in the place of all old ones; False when there is no ssh-keygen. Raises
        HostKeyError when none could be made.
        """
        try:
            if self.is_missing:
                log.warning("no ssh-keygen: SSH host keys stay as they are: install openssh")
                return False
            made = sorted(path.name for path in self._aside.iterdir())
            failed = [kind for kind, program in self._programs.items() if program.poll()]
            if not made:
                raise HostKeyError(
                    "no SSH host key could be made",
                    "; ".join(f"{kind}: {self._said(kind)}" for kind in failed)[:300],
                    "choose another Provisioning.SshHostKeyPairType",
                )
            for kind in failed:  # FIPS builds refuse some types
                log.warning("no SSH host key of type %s: %s", kind, self._said(kind))
            for name in made:
                # readable as sshd's own are, whatever umask init gave us
                os.chmod(self._aside / name, 0o644 if name.endswith(".pub") else 0o600)
                os.replace(self._aside / name, self._folder / name)
            for old in self._folder.glob("ssh_host_*key*"):
                if old.name not in made and (old.is_file() or old.is_symlink()):
                    old.unlink()
        finally:
            self.abandon()
        log.info("made new SSH host keys: %s", " ".join(name for name in made if "." not in name))
        return True

    def abandon(self) -> None:
        """Leave everything as it was."""
        for program in self._programs.values():
            program.kill()
            program.wait(1.0)
            program.close()
        shutil.rmtree(self._aside, ignore_errors=True)

    def _start(self, kinds: tuple[str, ...]) -> dict[str, programs.Program]:
        started = {}
        for kind in kinds:
            argv = ["ssh-keygen", "-q", "-N", "", "-t", kind, "-f"]
            argv.append(str(self._aside / f"ssh_host_{kind}_key"))
            try:
                started[kind] = programs.start(
                    argv, tool_environment(), stderr=programs.PIPE, session=False
                )
            except OSError:
                self.is_missing = True
        return started

    def _said(self, kind: str) -> str:
        program = self._programs[kind]
        try:
            said = os.read(program.streams[2], _SAID_BYTES)
        except OSError:
            said = b""
        text = said.decode("utf-8", "replace").strip()
        return text.splitlines()[0][:120] if text else f"ssh-keygen ended with {program.status}"


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
