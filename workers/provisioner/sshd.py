"""sshd's configuration: what we add, where, tested before it counts; and sshd told to read it
again.

Source: spec/provisioning.md §6.5 with its Rule, §6.6, traps 2 to 5, 28. sshd takes the first value
it reads.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError, ToolNotFound
from waagent.protocol.base.log import Log
from waagent.workers.provisioner.provisioning_error import ProvisioningError

DROP_IN = "sshd_config.d/10-waagent.conf"
BEGIN, END = "# waagent: begin", "# waagent: end"
_TEST_LIMIT_S = 20.0
_RELOAD_LIMIT_S = 30.0
_SET_BY_US = (
    "passwordauthentication",
    "challengeresponseauthentication",
    "kbdinteractiveauthentication",
    "clientaliveinterval",
)
_INCLUDE = re.compile(r"(?:\S*/)?sshd_config\.d/\*(?:\.conf)?\Z")
_PID_FILES = ("/run/sshd.pid", "/var/run/sshd.pid", "/run/sshd/sshd.pid")

Run = Callable[..., Finished]


class SshdError(ProvisioningError):
    """sshd would not accept its configuration with our lines; it is as it was."""


def directives(password_login: bool | None, client_alive_s: int) -> tuple[str, ...]:
    """The lines we want; ``password_login`` None: leave that to the image."""
    lines = []
    if password_login is not None:
        lines.append(f"PasswordAuthentication {'yes' if password_login else 'no'}")
    if password_login is False:
        # one is an alias of the other since OpenSSH 8.7, older ones know only the second
        lines += ["KbdInteractiveAuthentication no", "ChallengeResponseAuthentication no"]
    if client_alive_s > 0:
        lines.append(f"ClientAliveInterval {client_alive_s}")
    return tuple(lines)


def reads_drop_ins_first(text: str) -> bool:
    """Whether a drop-in would win: the main file includes sshd_config.d before it sets what we set,
    and outside of Match.
    """
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if not words or words[0].startswith("#"):
            continue
        name = words[0].lower()
        if name == "include" and any(_INCLUDE.match(word.strip('"')) for word in words[1:]):
            return True
        if name == "match" or name in _SET_BY_US:
            return False
    return False


def with_block(text: str, lines: tuple[str, ...]) -> str:
    """The main file with our lines in a marked block at its top (never behind a Match, trap 3); an
    older block goes.
    """
    kept: list[str] = []
    is_ours = False
    for line in text.splitlines():
        if line.strip() == BEGIN:
            is_ours = True
        elif line.strip() == END and is_ours:
            is_ours = False
        elif not is_ours:
            kept.append(line)
    block = [BEGIN, *lines, END] if lines else []
    return "\n".join([*block, *kept]) + "\n"


def configure_sshd(
    paths: Paths, ssh_folder: str, lines: tuple[str, ...], run: Run, log: Log
) -> str:
    """Have sshd's configuration begin with ``lines``; the file that was written, empty when nothing
    was to do.

    Raises SshdError when sshd refuses the result; nothing is changed then.
    """
    main = paths.under(ssh_folder) / "sshd_config"
    try:
        text = main.read_text("utf-8", "surrogateescape")
        mode = main.stat().st_mode & 0o777
    except FileNotFoundError:
        log.info("no %s: sshd is left alone", main)
        return ""
    lines = _known_to_sshd(paths, text, lines, run, log)
    if reads_drop_ins_first(text) and (main.parent / "sshd_config.d").is_dir():
        file, content, mode = (
            main.parent / DROP_IN,
            "".join(line + "\n" for line in (BEGIN, *lines)),
            0o600,
        )
    else:
        file, content = main, with_block(text, lines)
    data = content.encode("utf-8", "surrogateescape")
    if file.exists() and file.read_bytes() == data:
        return str(file)
    write_atomic(file, data, mode=mode)
    log.info("sshd is configured file=%s %s", file, "; ".join(lines))
    return str(file)


def _known_to_sshd(
    paths: Paths, text: str, lines: tuple[str, ...], run: Run, log: Log
) -> tuple[str, ...]:
    """The lines that this sshd accepts in front of its configuration. Raises SshdError when none of
    the ways is accepted.
    """
    problem = _complaint(paths, with_block(text, lines), run)
    if not problem:
        return lines
    older = tuple(line for line in lines if not line.startswith("KbdInteractive"))
    if not _complaint(paths, with_block(text, older), run):
        return older
    if _complaint(paths, text, run):
        log.warning(
            "sshd refuses its configuration also without our lines, they are added all the"
            " same: %s",
            problem,
        )
        return lines
    raise SshdError(
        "sshd refuses its configuration with our lines",
        problem,
        "look at sshd_config with: sshd -t",
    )


def _complaint(paths: Paths, text: str, run: Run) -> str:
    """What sshd says of a configuration; empty when it is well, or when there is no sshd to ask."""
    candidate = paths.library / "sshd_config.test"
    write_atomic(candidate, text.encode("utf-8", "surrogateescape"), mode=0o600)
    try:
        run([_program(paths), "-t", "-f", str(candidate)], deadline_s=_TEST_LIMIT_S)
    except ToolNotFound:
        return ""
    except ToolError as error:
        return error.where
    finally:
        candidate.unlink()
    return ""


def _program(paths: Paths) -> str:
    """sshd wants to be called by its whole path."""
    for place in ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"):
        if paths.under(place).exists():
            return str(paths.under(place))
    return "sshd"


def reload_sshd(paths: Paths, family: Family, run: Run, log: Log) -> str:
    """Have a running sshd read its configuration again, sessions stay; what was done. No sshd is
    started by us.
    """
    if paths.under("/run/systemd/system").is_dir():
        try:
            run(
                ["systemctl", "try-reload-or-restart", family.sshd_unit], deadline_s=_RELOAD_LIMIT_S
            )
        except ToolError as error:
            log.warning(
                "sshd was not reloaded, it reads its configuration at its next start: %s", error
            )
            return ""
        return f"systemctl {family.sshd_unit}"
    for name in _PID_FILES:
        pid = _sshd_pid(paths, paths.under(name))
        if pid is not None:
            os.kill(pid, signal.SIGHUP)
            return f"SIGHUP to {pid}"
    return ""


def _sshd_pid(paths: Paths, file: Path) -> int | None:
    """The pid in the file, when sshd has it."""
    try:
        pid = int(file.read_text("ascii").strip())
        command = paths.under(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except (OSError, ValueError):
        return None
    return pid if pid > 1 and command == "sshd" else None
