"""The user's account: looked up, made, given a password.

Source: spec/provisioning.md §5 with its Rules, traps 13, 15, 17, 29.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError
from waagent.protocol.base.log import Log
from waagent.protocol.base.secret import Secret
from waagent.workers.provisioner.passwords import CannotHash, hash_password
from waagent.workers.provisioner.plan import Options, PasswdEntry
from waagent.workers.provisioner.provisioning_error import ProvisioningError

TOOL_LIMIT_S = 60.0
NO_LOGIN_BY_PASSWORD = "*"  # unlike `!` it does not keep a sshd without PAM from taking keys (§5.4)
_UNSET = ("", "!", "!!", "!*")
_SHADOW_LIMIT_BYTES = 4 * 1024 * 1024

Run = Callable[..., Finished]


class UserError(ProvisioningError):
    """The account could not be made or changed."""


def find_account(paths: Paths, name: str) -> PasswdEntry | None:
    """The account of that name: in /etc/passwd, else (on the running system) from wherever it keeps
    its users.
    """
    for fields in _lines_of(paths.under("/etc/passwd")):
        if fields[0] == name and len(fields) >= 7 and fields[2].isdigit() and fields[3].isdigit():
            return PasswdEntry(name, int(fields[2]), int(fields[3]), fields[5])
    if paths.root != Path("/"):
        return None
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return PasswdEntry(name, found.pw_uid, found.pw_gid, found.pw_dir)


def ensure_account(paths: Paths, family: Family, run: Run, name: str, log: Log) -> PasswdEntry:
    """The account, made when it is missing, with a home that is its own. Raises UserError."""
    present = find_account(paths, name)
    if present is None:
        argv = [word.replace("{name}", name) for word in family.create_user]
        if argv[0] == "useradd" and any(
            fields[0] == name for fields in _lines_of(paths.under("/etc/group"))
        ):
            argv[1:1] = ["-g", name]  # useradd refuses to make the group of that name otherwise
        try:
            run(argv, deadline_s=TOOL_LIMIT_S)
        except ToolError as error:
            raise UserError(
                f"Failed to create user account: {name} (0x07)",
                f"{error.what}, {error.where}",
                error.remedy,
            ) from error
        present = find_account(paths, name)
        if present is None:
            raise UserError(
                f"Failed to create user account: {name} (0x07)",
                f"{argv[0]} made no entry in passwd",
                "run it by hand",
            )
        log.info("created user %s uid=%d", name, present.uid)
    ensure_home(paths, present)
    return present


def ensure_home(paths: Paths, account: PasswdEntry) -> None:
    """Give the account its home folder: made when missing, its top (nothing below it) owned by the
    account (trap 29).
    """
    home = paths.under(account.home)
    if home.name != account.name or len(home.parts) < 3:
        return  # `/`, `/nonexistent` or another's: not ours to change
    try:
        home.mkdir(mode=0o700)
    except FileExistsError:
        pass  # from the image, from useradd, or from the run before this one
    except FileNotFoundError:
        home.parent.mkdir(mode=0o755, parents=True)
        home.mkdir(mode=0o700)
    try:
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            "the home folder is a link or a file", str(home), "remove it from the image"
        ) from error
    try:
        if os.fstat(descriptor).st_uid != account.uid:
            os.fchown(descriptor, account.uid, account.gid)
    finally:
        os.close(descriptor)


def set_password(
    paths: Paths,
    family: Family,
    options: Options,
    run: Run,
    name: str,
    password: Secret | None,
    log: Log,
) -> None:
    """Give the account its password; without one make it known as an account that logs in by key.
    Raises UserError.
    """
    if password is not None:
        hashed = _hash(password, options, log)
    elif shadow_field(paths, options.shadow or family.shadow, name) in _UNSET:
        hashed = NO_LOGIN_BY_PASSWORD
    else:
        return  # the image, or an earlier run, has set it
    try:
        if family.make_database:
            _write_field(paths.under(options.shadow or family.shadow), name, hashed)
            run(family.make_database, deadline_s=TOOL_LIMIT_S)
        else:
            argv = [word.replace("{name}", name) for word in family.set_password]
            said = family.set_password_stdin.format(name=name, hash=hashed).encode("ascii")
            run(argv, deadline_s=TOOL_LIMIT_S, stdin=said)
    except ToolError as error:
        raise UserError(f"Failed to set password of {name}", error.what, error.remedy) from error
    log.info(
        "set the password field of %s to %s",
        name,
        "a hash" if password is not None else "`*` (keys only)",
    )


def _write_field(file: Path, name: str, hashed: str) -> None:
    """Put the hash into an account's line; owner and mode of the file stay."""
    lines = []
    for line in file.read_text("utf-8", "surrogateescape").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 1:
            fields[1] = hashed
        lines.append(":".join(fields) + "\n")
    facts = file.stat()
    data = "".join(lines).encode("utf-8", "surrogateescape")
    write_atomic(file, data, mode=stat.S_IMODE(facts.st_mode), owner=(facts.st_uid, facts.st_gid))


def shadow_field(paths: Paths, shadow: str, name: str) -> str:
    """The password field of an account; empty when there is no entry."""
    for fields in _lines_of(paths.under(shadow)):
        if fields[0] == name and len(fields) > 1:
            return fields[1]
    return ""


def _hash(password: Secret, options: Options, log: Log) -> str:
    try:
        return hash_password(password, options.crypt_id, options.salt_length)
    except CannotHash as error:
        log.warning("%s: taking SHA-512", error)
        return hash_password(password, "6", options.salt_length)


def _lines_of(path: Path) -> list[list[str]]:
    try:
        with path.open("rb") as file:
            text = file.read(_SHADOW_LIMIT_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines() if line]
