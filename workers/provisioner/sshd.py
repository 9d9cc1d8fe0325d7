"""sshd's configuration: what is in force, what we add and where, checked before and after.

What counts is what `sshd -T` answers: an option that has the wanted value already is not written,
and one that does not have it afterwards is told as not honoured. Our lines go into a drop-in that
sshd reads before whatever sets the option, else to the top of the main file; a file below /usr is
never changed, and what sshd refuses is taken back. Source: sshd_config(5), sshd(8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from waagent.distro import sshd_later, sshd_settings
from waagent.distro.files import make_folder, write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError, ToolNotFound
from waagent.distro.sshd_settings import Include, Setting
from waagent.protocol.base.log import Log

_TEST_LIMIT_S = 20.0
_FROM = "host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"  # RFC 5737: nobody's address
# one is an alias of the other since OpenSSH 8.7, older ones know only the second
_NAMES = {
    "passwordauthentication": "PasswordAuthentication",
    "kbdinteractiveauthentication": "KbdInteractiveAuthentication",
    "challengeresponseauthentication": "ChallengeResponseAuthentication",
    "clientaliveinterval": "ClientAliveInterval",
}

Run = Callable[..., Finished]


@dataclass(frozen=True)
class Sshd:
    """The sshd of a machine: where it is configured, how it is asked, and for whom."""

    paths: Paths
    ssh_folder: str
    run: Run
    log: Log
    user_name: str = ""
    may_edit_main: bool = True


def wanted_settings(password_login: bool | None, client_alive_s: int) -> dict[str, str]:
    """The values we want; ``password_login`` None: leave that to the image."""
    wanted = {}
    if password_login is not None:
        wanted["passwordauthentication"] = "yes" if password_login else "no"
    if password_login is False:
        wanted["kbdinteractiveauthentication"] = "no"
        wanted["challengeresponseauthentication"] = "no"
    if client_alive_s > 0:
        wanted["clientaliveinterval"] = str(client_alive_s)
    return wanted


def configure_sshd(sshd: Sshd, wanted: dict[str, str]) -> str:
    """Have ``wanted`` in force; the file that was written, empty when nothing was to do or nothing
    could be done (a warning says which and why).
    """
    main = sshd_settings.main_file(sshd.paths, sshd.ssh_folder)
    if main is None:
        if _is_installed(sshd):
            sshd.log.warning(
                "sshd is not configured, its settings stay: no sshd_config in %s or %s: write one",
                sshd.ssh_folder,
                sshd_settings.VENDOR_FOLDER,
            )
        return ""
    _make_run_folder(sshd)
    problem = _complaint(sshd)
    if problem:
        withdraw(sshd)  # an earlier run may have been killed between writing and looking
        problem = _complaint(sshd)
    if problem:
        sshd.log.warning(
            "sshd refuses its configuration, it is left alone and logins may fail: %s: correct it"
            " and test it with: sshd -t",
            problem,
        )
        return ""
    missing = _not_in_force(sshd, main, wanted)
    if not missing:
        return ""
    file = _write(sshd, main, {**_ours(sshd, main, wanted), **missing})
    _tell(sshd, main, wanted, file)
    return str(file) if file is not None else ""


def _write(sshd: Sshd, main: Path, wanted: dict[str, str]) -> Path | None:
    """Write what is ``wanted`` where it wins, if anywhere and if sshd takes it; the file."""
    lines = _accepted(sshd, main, tuple(f"{_NAMES[name]} {wanted[name]}" for name in wanted))
    if not lines:
        return None
    read = sshd_settings.read_settings(sshd.paths, main, sshd.ssh_folder)
    file = sshd_settings.winning_drop_in(sshd.paths, read, frozenset(wanted))
    if file is None and (not sshd.may_edit_main or sshd_settings.is_vendors(sshd.paths, main)):
        return None
    withdraw(sshd)
    if file is not None:
        if not file.parent.is_dir():
            make_folder(file.parent, 0o755)
        text, mode = "".join(line + "\n" for line in (sshd_settings.BEGIN, *lines)), 0o600
    else:
        file = main
        text = sshd_settings.with_block(sshd_settings.text_of(main), lines)
        mode = main.stat().st_mode & 0o777
    write_atomic(file, text.encode("utf-8", "surrogateescape"), mode=mode)
    problem = _complaint(sshd)
    if problem:
        withdraw(sshd)
        sshd.log.warning(
            "sshd refuses its configuration with our lines, they were taken back: %s: look at %s",
            problem,
            file,
        )
        return None
    sshd_later.remember(sshd.paths, main, sshd.ssh_folder, file)
    return file


def _accepted(sshd: Sshd, main: Path, lines: tuple[str, ...]) -> tuple[str, ...]:
    """The lines that this sshd takes in front of its configuration, asked about a copy."""
    text = sshd_settings.text_of(main)
    without: tuple[str, ...]
    for without in ((), ("Kbd",), ("Challenge",)):
        tried = tuple(line for line in lines if not line.startswith(without or "\0"))
        candidate = sshd.paths.library / "sshd_config.test"
        data = sshd_settings.with_block(text, tried).encode("utf-8", "surrogateescape")
        write_atomic(candidate, data, mode=0o600)
        try:
            problem = _complaint(sshd, "-f", str(candidate))
        finally:
            candidate.unlink()
        if not problem:
            return tried
    sshd.log.warning("sshd does not take our lines, nothing is changed: %s", problem)
    return ()


def withdraw(sshd: Sshd) -> None:
    """Take our lines out of sshd's configuration, wherever an earlier run has put them."""
    main = sshd_settings.main_file(sshd.paths, sshd.ssh_folder)
    if main is not None:
        sshd_later.withdraw_all(sshd.paths, main, sshd.ssh_folder)


def _ours(sshd: Sshd, main: Path, wanted: dict[str, str]) -> dict[str, str]:
    """What our lines say already, and shall say."""
    read = sshd_settings.read_settings(sshd.paths, main, sshd.ssh_folder)
    said = {line.option for line in read if isinstance(line, Setting) and line.is_ours}
    return {name: value for name, value in wanted.items() if name in said}


def _not_in_force(sshd: Sshd, main: Path, wanted: dict[str, str]) -> dict[str, str]:
    """Of ``wanted`` what sshd does not have; all of it when there is no sshd to ask."""
    answer = effective(sshd, main)
    if answer is None:
        return wanted
    return {name: value for name, value in wanted.items() if answer.get(name, value) != value}


def effective(sshd: Sshd, main: Path) -> dict[str, str] | None:
    """What `sshd -T` answers (option in lower case -> value), for our user where Match blocks
    exist; None when it does not.
    """
    read = sshd_settings.read_settings(sshd.paths, main, sshd.ssh_folder)
    argv = [_program(sshd.paths), "-T", "-f", str(main)]
    has_match = any(isinstance(line, (Setting, Include)) and line.is_in_match for line in read)
    if has_match:
        argv += ["-C", f"user={sshd.user_name or 'root'},{_FROM}"]
    try:
        said = sshd.run(argv, deadline_s=_TEST_LIMIT_S).stdout.decode("utf-8", "replace")
    except ToolError:
        return None
    answer: dict[str, str] = {}
    for line in said.splitlines():
        option, _, value = line.partition(" ")
        answer.setdefault(option.lower(), value.strip())
    return answer


def _tell(sshd: Sshd, main: Path, wanted: dict[str, str], file: Path | None) -> None:
    """Say what is in force now and, for what is not, who stands in the way."""
    answer = effective(sshd, main)
    if answer is None:
        if file is not None:
            sshd.log.info("sshd's configuration is written, not checked: file=%s", file)
        return
    read = sshd_settings.read_settings(sshd.paths, main, sshd.ssh_folder)
    done = []
    for name, value in wanted.items():
        if answer.get(name, value) == value:
            done.append(f"{_NAMES[name]} {value}")
            continue
        by = sshd_settings.first_of(read, name, is_in_match=True) or sshd_settings.first_of(
            read, name, is_in_match=False
        )
        where = f"{by.file}:{by.line}" if by is not None else str(main)
        sshd.log.warning(
            "%s %s is not honoured, sshd says %s: %s: change that line",
            _NAMES[name],
            value,
            answer[name],
            where,
        )
    if file is not None and done:
        sshd.log.info("sshd is configured file=%s %s", file, "; ".join(done))


def _complaint(sshd: Sshd, *more: str) -> str:
    """What `sshd -t` says of the configuration; empty when it is well, or there is no sshd."""
    main = sshd_settings.main_file(sshd.paths, sshd.ssh_folder)
    arguments = more or (() if main is None else ("-f", str(main)))
    try:
        sshd.run([_program(sshd.paths), "-t", *arguments], deadline_s=_TEST_LIMIT_S)
    except ToolNotFound:
        return ""
    except ToolError as error:
        return error.where
    return ""


def _make_run_folder(sshd: Sshd) -> None:
    """Debian's sshd wants its folder even for a test, and only its service makes it."""
    if sshd.paths.under("/run").is_dir() and _is_installed(sshd):
        sshd.paths.under("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _is_installed(sshd: Sshd) -> bool:
    return "/" in _program(sshd.paths)


def _program(paths: Paths) -> str:
    """sshd wants to be called by its whole path."""
    for place in ("/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"):
        if paths.under(place).exists():
            return str(paths.under(place))
    return "sshd"
