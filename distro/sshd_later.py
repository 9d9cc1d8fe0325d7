"""Our lines in sshd's configuration make way for those that others write later.

A customer's tool (the VMAccess extension, an administrator) edits sshd's main file or a drop-in of
its own, reloads sshd, and expects its value to count. Ours, which sshd reads first, would hide it.
So what others said when ours was written is kept in `<lib>/sshd.json`, and an option that they have
set anew since is taken out of our lines. Called by the provisioner at its start and by
extension_runner when an operation has ended. Standard library only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waagent.distro.distributions import Family, sshd_unit
from waagent.distro.files import read_state_json, write_atomic, write_json
from waagent.distro.paths import Paths
from waagent.distro.run import Finished
from waagent.distro.sshd_settings import (
    BEGIN,
    Include,
    Setting,
    lines_in_block,
    main_file,
    names_in,
    read_settings,
    text_of,
    with_block,
    without_block,
)

NOTE = "sshd.json"
_RELOAD_LIMIT_S = 30.0
_CLOCK_STEP_S = 0.1  # file systems take the time of the last tick
_PID_FILES = ("/run/sshd.pid", "/var/run/sshd.pid", "/run/sshd/sshd.pid")
_ALIASES = {"challengeresponseauthentication": "kbdinteractiveauthentication"}

Run = Callable[..., Finished]


def remember(paths: Paths, main: Path, ssh_folder: str, file: Path) -> None:
    """Note that ``file`` has our lines now, and what others say at this moment."""
    others = _said_by_others(paths, main, ssh_folder)
    write_json(
        paths.library / NOTE, {"file": str(file), "ssh_folder": ssh_folder, "others": others}
    )


def make_way(paths: Paths, changed_since: float | None = None) -> list[str]:
    """Take out of our lines every option that others have set since; their names. The caller has
    sshd read its configuration again when there are any.

    ``changed_since`` (seconds since the epoch): whoever has written a file since then means what
    stands in it, even if it stood there before, hidden by ours.
    """
    note = read_state_json(paths.library / NOTE)
    if not isinstance(note, dict) or not isinstance(note.get("others"), dict):
        return []
    ssh_folder = str(note.get("ssh_folder"))
    main = main_file(paths, ssh_folder)
    file = Path(str(note.get("file")))
    if main is None or not file.is_file():
        return []
    now = _said_by_others(paths, main, ssh_folder)
    is_set = {option for option, said in now.items() if said != note["others"].get(option)}
    if changed_since is not None:
        is_set |= {
            option
            for option, said in now.items()
            if any(_changed_at(name) >= changed_since - _CLOCK_STEP_S for _, name in said)
        }
    ours = lines_in_block(text_of(file))
    kept = [line for line in ours if _option_of(line) not in is_set]
    if len(kept) == len(ours):
        return []
    _rewrite(file, tuple(kept))
    return sorted({line.split()[0] for line in ours} - {line.split()[0] for line in kept})


def _changed_at(file: str) -> float:
    try:
        return os.stat(file).st_ctime
    except OSError:
        return 0.0


def withdraw_all(paths: Paths, main: Path, ssh_folder: str) -> None:
    """Remove our lines from wherever they may stand."""
    for line in read_settings(paths, main, ssh_folder):
        if isinstance(line, Include):
            for name in names_in(line.folder, "*waagent.conf"):
                if text_of(line.folder / name).startswith(BEGIN):
                    (line.folder / name).unlink()
    if BEGIN in text_of(main):
        _rewrite(main, ())


def reload_sshd(paths: Paths, family: Family, run: Run) -> str:
    """Have a running sshd read its configuration again, sessions stay; what was done, empty when
    none runs. No sshd is started by us. Raises ToolError.
    """
    if paths.under("/run/systemd/system").is_dir():
        unit = sshd_unit(paths, family)
        run(["systemctl", "try-reload-or-restart", unit], deadline_s=_RELOAD_LIMIT_S)
        return f"systemctl {unit}"
    if family.sshd_restart:
        run(family.sshd_restart, deadline_s=_RELOAD_LIMIT_S)
        return " ".join(family.sshd_restart)
    for name in _PID_FILES:
        pid = _sshd_pid(paths, paths.under(name))
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            return f"SIGHUP to {pid}"
    return ""


def _said_by_others(paths: Paths, main: Path, ssh_folder: str) -> dict[str, list[Any]]:
    said: dict[str, list[Any]] = {}
    for line in read_settings(paths, main, ssh_folder):
        if isinstance(line, Setting) and not line.is_ours and not line.is_in_match:
            option = _ALIASES.get(line.option, line.option)
            said.setdefault(option, []).append([line.value, str(line.file)])
    return said


def _option_of(line: str) -> str:
    option = line.split()[0].lower()
    return _ALIASES.get(option, option)


def _rewrite(file: Path, lines: tuple[str, ...]) -> None:
    """Have ``lines`` as ours in ``file``, which goes when it was ours alone and they are none."""
    text = text_of(file)
    rest = without_block(text)
    if text.startswith(BEGIN) and not rest.strip() and file.name != "sshd_config":
        if not lines:
            file.unlink()
            return
        text = "".join(line + "\n" for line in (BEGIN, *lines))
    else:
        text = with_block(text, lines)
    mode = file.stat().st_mode & 0o777
    write_atomic(file, text.encode("utf-8", "surrogateescape"), mode=mode)


def _sshd_pid(paths: Paths, file: Path) -> int | None:
    """The pid in the file, when sshd has it."""
    try:
        pid = int(file.read_text("ascii").strip())
        command = paths.under(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except (OSError, ValueError):
        return None
    return pid if pid > 1 and command == "sshd" else None
