"""The keys by which the user may log in, and the key pairs that it shall have. Source:
spec/provisioning.md §6.1 to §6.3.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from waagent.distro import our_python
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError
from waagent.protocol.base.log import Log
from waagent.workers.provisioner import key_writer
from waagent.workers.provisioner.plan import PasswdEntry
from waagent.workers.provisioner.provisioning_error import ProvisioningError

AUTHORIZED_KEYS = ".ssh/authorized_keys"
_LIMIT_S = 20.0
_CERTIFICATE_LIMIT_BYTES = 256 * 1024

Run = Callable[..., Finished]


class DeployError(ProvisioningError):
    """A key could not be deployed."""


@dataclass(frozen=True)
class Target:
    """A file to write: below ``base``, through ``folders``, as ``uid``."""

    base: str
    folders: tuple[str, ...]
    name: str
    is_the_users: bool
    """Below the user's home: written as the user, 0600. Else root's, readable for sshd, 0644."""


def target_of(path: str, home_base: str, account: PasswdEntry) -> Target:
    """Where a Path of the request leads (§6.1, trap 13). Raises DeployError for a path that is
    none.

    `$HOME` is the folder of all homes. Below the user's folder there the account's real home
    counts.
    """
    text = (
        path.replace("$HOME", home_base) if path else posixpath.join(account.home, AUTHORIZED_KEYS)
    )
    plain = posixpath.normpath(text)
    if not text.startswith("/") or text.endswith("/") or "\0" in text or plain in ("/", "//"):
        raise DeployError(
            "Invalid path for public key (0x03)",
            repr(path[:200]),
            "send an absolute path of a file",
        )
    usual = posixpath.join(posixpath.normpath(home_base), account.name)
    for folder in (usual, posixpath.normpath(account.home)):
        if plain.startswith(folder + "/"):
            parts = plain[len(folder) + 1 :].split("/")
            return Target(account.home, tuple(parts[:-1]), parts[-1], True)
    parts = plain.lstrip("/").split("/")
    return Target("/", tuple(parts[:-1]), parts[-1], False)


@dataclass(frozen=True)
class Deployed:
    """What became of the keys that were asked for."""

    count: int = 0
    problems: tuple[str, ...] = ()


def deploy_public_keys(
    paths: Paths,
    run: Run,
    account: PasswdEntry,
    home_base: str,
    keys: Iterable[tuple[str, str]],
    log: Log,
) -> Deployed:
    """Add ``keys`` (path, line) to the files they belong in, each once. Where a path leads to no
    file that can be written, the user's own `.ssh/authorized_keys` takes them.
    """
    problems: list[str] = []
    usual = target_of("", home_base, account)
    wanted: dict[Target, list[str]] = {}
    for path, line in keys:
        try:
            target = target_of(path, home_base, account)
        except DeployError as error:
            problems.append(str(error))
            target = usual
        wanted.setdefault(target, []).append(line)
    left = list(wanted.items())
    count = 0
    while left:
        target, lines = left.pop(0)
        told: dict[str, object] = {"lines": lines, "mode": 0o600 if target.is_the_users else 0o644}
        try:
            _write(paths, run, account, target, told)
        except DeployError as error:
            problems.append(str(error))
            if target != usual:
                left.append((usual, lines))
            continue
        count += len(lines)
        place = posixpath.join(target.base, *target.folders, target.name)
        log.info("deployed %d keys for %s in %s", len(lines), account.name, place)
    return Deployed(count, tuple(problems))


def deploy_key_pair(
    paths: Paths, run: Run, account: PasswdEntry, home_base: str, path: str, fingerprint: str
) -> None:
    """Give the user the key of a certificate: `Path` 0600 and `Path`.pub 0644, its own. Raises
    DeployError.
    """
    try:
        key = (paths.library / f"{fingerprint}.prv").read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DeployError(
            "Failed to deploy key pair (0x0A)",
            f"{fingerprint}.prv",
            "the certificate must come with its key",
        ) from error
    target = target_of(path, home_base, account)
    public = Target(target.base, target.folders, target.name + ".pub", target.is_the_users)
    _write(paths, run, account, target, {"content": key, "mode": 0o600})
    _write(
        paths,
        run,
        account,
        public,
        {"content": openssh_line(paths, fingerprint) + "\n", "mode": 0o644},
    )


def openssh_line(paths: Paths, fingerprint: str) -> str:
    """The public key of `<lib>/<FP>.crt` in OpenSSH's form, whatever its type (trap 8). Raises
    DeployError.
    """
    from cryptography import x509  # 12 MiB: only where a key comes as a certificate
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    file = paths.library / f"{fingerprint}.crt"
    try:
        with file.open("rb") as stream:
            certificate = x509.load_pem_x509_certificate(stream.read(_CERTIFICATE_LIMIT_BYTES))
        line: bytes = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DeployError(
            "Failed to deploy public key (0x09)",
            str(file),
            "send a certificate with an RSA, EC or Ed25519 key",
        ) from error
    return line.decode("ascii")


def _write(
    paths: Paths, run: Run, account: PasswdEntry, target: Target, what: dict[str, object]
) -> None:
    if target.is_the_users:
        own_ssh_folder(paths.under(target.base), account)
    uid, gid = (account.uid, account.gid) if target.is_the_users else (0, 0)
    told = {
        "uid": uid,
        "gid": gid,
        "base": str(paths.under(target.base)),
        "folders": target.folders,
        "name": target.name,
        "folder_mode": 0o700 if target.is_the_users else 0o755,
        **what,
    }
    argv = our_python.argv(key_writer.__name__, title="key writer")
    place = posixpath.join(target.base, *target.folders, target.name)
    try:
        run(argv, deadline_s=_LIMIT_S, stdin=json.dumps(told).encode("ascii"))
    except ToolError as error:
        raise DeployError(
            "Failed to deploy public key (0x09)",
            f"{place}, {error.where}",
            "remove what stands there",
        ) from error
    _label(paths, run, paths.under(place))


def _label(paths: Paths, run: Run, file: Path) -> None:
    """Give a key's file and its folder the label by which sshd may read them, where SELinux is on.
    Enforcement stays as it is; without a tool for it sshd says what it misses.
    """
    if not paths.under("/sys/fs/selinux/enforce").exists():
        return
    places = [str(file.parent), str(file)]
    for argv in (["restorecon", "-F"], ["chcon", "-t", "ssh_home_t"]):
        try:
            run([*argv, *places], deadline_s=_LIMIT_S)
        except ToolError:
            continue
        return


def own_ssh_folder(home: Path, account: PasswdEntry) -> None:
    """Hand `.ssh` over to its account when the image left it to somebody else; its content is not
    touched (trap 29).
    """
    try:
        folder = os.open(home / ".ssh", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # missing, or no folder: the writer makes it, or says what stands there
    try:
        if os.fstat(folder).st_uid != account.uid:
            os.fchown(folder, account.uid, account.gid)
    finally:
        os.close(folder)
