"""Effects on the machine's accounts, by its own tools. A password goes to chpasswd by a pipe."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from waagent.distro.distributions import family_of
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError, ToolNotFound
from waagent.protocol.bus.topics import RemoteUser
from waagent.workers.account_keeper import plan

FILE_NAME = "waagent-jit"
TOOL_LIMIT_S = 60.0
_MODE = 0o440
_PASSWD_LIMIT_BYTES = 4 * 1024 * 1024
PASSWORD_LIMIT_BYTES = 1024

Run = Callable[..., Any]


class AccountError(Exception):
    """One account could not be made; it is not there then."""


def present_accounts(paths: Paths) -> dict[str, str]:
    """Comment of each account in /etc/passwd, by name."""
    with open(paths.under("/etc/passwd"), "rb") as stream:
        text = stream.read(_PASSWD_LIMIT_BYTES).decode("utf-8", "surrogateescape")
    rows = [line.split(":") for line in text.splitlines()]
    return {fields[0]: fields[4] for fields in rows if len(fields) >= 7}


def create(run: Run, user: RemoteUser, password: bytes) -> None:
    """The account with its password, or none of it. Raises AccountError."""
    if (
        not password
        or len(password) > PASSWORD_LIMIT_BYTES
        or b"\n" in password
        or b"\0" in password
    ):
        raise AccountError("the password is empty, too long, or of several lines")
    useradd = ["useradd", "-m", "-e", plan.expiry_date(user.expires_at), "--comment", plan.COMMENT]
    try:
        run([*useradd, user.name], deadline_s=TOOL_LIMIT_S)
    except ToolError as error:
        raise AccountError(f"useradd: {error.what}") from error
    try:
        run(
            ["chpasswd"],
            deadline_s=TOOL_LIMIT_S,
            stdin=user.name.encode() + b":" + password + b"\n",
        )
    except ToolError as error:
        remove(run, user.name)
        raise AccountError(f"chpasswd: {error.what}") from error


def remove(run: Run, name: str) -> None:
    """Without account and home, whoever is logged in. Raises ToolError."""
    run(["userdel", "-f", "-r", name], deadline_s=TOOL_LIMIT_S, check=False)


def allow_sudo(paths: Paths, folder: str | None, run: Run, names: Iterable[str]) -> None:
    """Exactly these may use sudo by our file; without any there is no file. Raises OSError,
    ToolError.
    """
    place: Path = paths.under(folder or family_of(paths).sudoers_folder)
    file, wanted = place / FILE_NAME, list(names)
    if not wanted:
        file.unlink(missing_ok=True)
        return
    place.mkdir(mode=0o750, parents=True, exist_ok=True)
    candidate = place / f".{FILE_NAME}.new"  # sudo passes over names with a dot
    write_atomic(candidate, plan.sudoers_text(wanted).encode("ascii"), mode=_MODE)
    try:
        run(["visudo", "-cf", str(candidate)], deadline_s=TOOL_LIMIT_S)
    except ToolNotFound:
        pass  # sudo is not installed: the file waits for it
    except ToolError:
        candidate.unlink()
        raise
    os.rename(candidate, file)
