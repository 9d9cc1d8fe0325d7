"""The user's right to use sudo: one line in a file of ours, tested before it counts. Source:
spec/provisioning.md §5.5.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError, ToolNotFound
from waagent.workers.provisioner.plan import Options, sudoers_text
from waagent.workers.provisioner.provisioning_error import ProvisioningError

FILE_NAME = "waagent"
_MODE = 0o440
_LIMIT_S = 20.0
_CANDIDATE = ".waagent.new"  # sudo passes over names with a dot

Run = Callable[..., Finished]


class SudoError(ProvisioningError):
    """The right could not be given; sudo's configuration is as it was."""


def allow_sudo(
    paths: Paths, family: Family, options: Options, run: Run, user_name: str, has_password: bool
) -> Path:
    """Let the user run everything, asked for the password when there is one. The file. Raises
    SudoError.
    """
    if family.doas_file:
        return _allow_doas(paths.under(family.doas_file), run, user_name, has_password)
    folder = paths.under(options.sudoers_folder or family.sudoers_folder)
    if not folder.is_dir():
        folder.mkdir(mode=0o750, parents=True)
        _include(folder)
    file = folder / FILE_NAME
    try:
        present = file.read_text("utf-8", "replace")
    except FileNotFoundError:
        present = ""
    wanted = sudoers_text(present, user_name, has_password)
    if wanted == present and file.stat().st_mode & 0o777 == _MODE:
        return file
    _put(file, wanted, _MODE, ["visudo", "-cf"], run)
    return file


def _allow_doas(file: Path, run: Run, user_name: str, has_password: bool) -> Path:
    """The same in doas.conf(5), where the last matching line counts."""
    present = (
        file.read_text("utf-8", "replace") if file.exists() else "permit keepenv nopass root\n"
    )
    others = [line for line in present.splitlines() if line.split()[-1:] != [user_name]]
    rights = "persist" if has_password else "nopass"
    wanted = "".join(line + "\n" for line in (*others, f"permit keepenv {rights} {user_name}"))
    _put(file, wanted, 0o644, ["doas", "-C"], run)
    return file


def _put(file: Path, text: str, mode: int, check: list[str], run: Run) -> None:
    """``text`` at its place, once ``check`` has accepted it. Raises SudoError, OSError."""
    candidate = file.with_name(_CANDIDATE)
    write_atomic(candidate, text.encode("utf-8"), mode=mode)
    try:
        run([*check, str(candidate)], deadline_s=_LIMIT_S)
    except ToolNotFound:
        pass  # it is not installed: the file waits for it
    except ToolError as error:
        candidate.unlink()
        raise SudoError(
            "Failed to configure sudo privileges (0x08)",
            f"{file}, {error.where}",
            "look at that file",
        ) from error
    os.rename(candidate, file)


def _include(folder: Path) -> None:
    """Have sudo read a folder that was not there, when sudo is there at all."""
    main = folder.parent / "sudoers"
    try:
        text = main.read_text("utf-8", "replace")
        facts = main.stat()
    except FileNotFoundError:
        return
    line = f"#includedir {folder}"
    if line not in text and line.replace("#", "@") not in text:
        write_atomic(
            main,
            f"{text.rstrip()}\n{line}\n".encode(),
            mode=facts.st_mode & 0o777,
            owner=(facts.st_uid, facts.st_gid),
        )
