"""Makes the texts that repeat a table: sample waagent.conf, manual pages, completion, accounts.

`python -m waagent.supervisor.commands.manual_pages` writes them into the checkout; a test compares
the files with what is made here. Pure but for ``main``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from waagent import __version__
from waagent.protocol.configuration import options
from waagent.protocol.configuration.options import IN_USE, KEPT, NUMBER, SEED, SWITCH, Option, Value
from waagent.supervisor import roster
from waagent.supervisor.commands import arguments
from waagent.supervisor.ps import arguments as ps_arguments
from waagent.supervisor.ps.arguments import folded

_WAAGENT_ABOUT = (
    "A small supervisor starts, watches and restarts workers, each with one job: finding the"
    " platform, provisioning, running VM extensions, answering load balancer probes. What they do"
    " is shown by waagent-ps(1). A word may have any number of - or / before it."
)
_SIGNALS = (
    ("TERM", "stop all workers, then end; operations of extensions go on"),
    ("HUP", "as -reload"),
)
_ENVIRONMENT = (
    (
        "WAAGENT_WITHOUT",
        "what to do without, by commas: subreaper, cgroups, landlock, psi, systemd",
    ),
)
_FILES = (
    ("/etc/waagent.conf, /etc/waagent/conf.d/*.conf", "configuration, see waagent.conf(5)"),
    ("/etc/waagent/sandbox.d/NAME.conf", "limits of one extension"),
    ("/var/lib/waagent/", "state"),
    ("/var/log/waagent.log", "log"),
    ("/var/log/azure/NAME/", "logs of extensions"),
    ("/run/waagent/", "sockets, locks, what waagent-ps reads"),
)
_PS_ABOUT = (
    "Shows the workers of the agent and the operations of VM extensions. Anyone may look, only root"
    " may change anything. When the supervisor does not answer, what it wrote last is shown,"
    " corrected by /proc, within a second."
)
_STATES = (
    ("STARTING, INIT, READY", "on the way and at work"),
    ("DONE", "did its one job in this boot"),
    ("IDLE", "on demand and not needed now"),
    ("OFF", "switched off by configuration"),
    ("STOPPING", "told to end"),
    ("HUNG", "no heartbeat within its limit; being replaced"),
    ("KILL, STUCK", "being killed; waits in the kernel and cannot be"),
    ("BACKOFF", "ended too soon, is tried again shortly"),
    ("PARKED", "ended too soon eight times; one try every 5 minutes"),
    ("GONE", "died with a supervisor that does not answer"),
)
_PS_FILES = (
    ("/run/waagent/control", "the supervisor's socket"),
    ("/run/waagent/state", "what it wrote last"),
    ("/run/waagent/operations", "operations of extensions"),
    ("/var/log/waagent/NAME.hang", "stacks of a worker that hung"),
)
_SYNTAX = (
    "Lines Name=value. Blanks around both are ignored; single or double quotes around the whole"
    " value keep blanks and #. A # starts a comment at the start of a line or after a blank. None"
    " means the default. Switches take y yes true 1 on and n no false 0 off. Of two lines for one"
    " option the last wins. Files /etc/waagent/conf.d/*.conf are read afterwards in the order of"
    " their names. An invalid value gives the default and a warning with file and line, it never"
    " stops the agent. The file must be writable by root only."
)
_CHECKING = (
    "waagent -check-configuration names every mistake, waagent -show-configuration -verbose what is"
    " in force and why."
)


def texts() -> dict[str, str]:
    """Every generated file of the checkout by its path."""
    return {
        "etc/waagent.conf": sample_configuration(),
        "etc/sysusers.d/waagent.conf": accounts(),
        "etc/bash_completion.d/waagent": completion(),
        "docs/man/waagent.8": waagent_page(),
        "docs/man/waagent-ps.1": waagent_ps_page(),
        "docs/man/waagent.conf.5": configuration_page(),
    }


def main(argv: list[str] | None = None) -> int:
    """Write the files below the checkout, or below the folder given, and name each that changed;
    with --check change nothing, 1 when one would.
    """
    words = sys.argv[1:] if argv is None else argv
    is_check = "--check" in words
    folders = [word for word in words if word != "--check"]
    root = Path(folders[0]) if folders else Path(__file__).resolve().parents[2]
    old = [name for name, text in texts().items() if not _is_there(root / name, text)]
    for name in old:
        print(f"{name} is not what the tables say" if is_check else name)
        if not is_check:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(texts()[name], encoding="ascii")
    return 1 if is_check and old else 0


def _is_there(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="ascii") == text


def written(value: Value) -> str:
    """A value as it stands in the file."""
    if value is True or value is False:
        return "y" if value else "n"
    return str(value)


def sample_configuration() -> str:
    """`/etc/waagent.conf` as installed: every documented option with its default, later ones as
    comments.
    """
    lines = [
        "# Configuration of the Azure guest agent, see waagent.conf(5).",
        (
            "# Name=value; y or n for switches; None means the default. A # starts a comment at the"
            " start of a line or after a blank."
        ),
        (
            "# Files /etc/waagent/conf.d/*.conf are read after this one. Check: waagent"
            " -check-configuration. Apply: waagent -reload"
        ),
    ]
    for title, rows in options.GROUPS:
        shown = [option for option in rows if option.use in (SEED, IN_USE)]
        if not shown:
            continue
        lines += ["", "", f"## {title}"]
        for option in shown:
            lines += ["", *(f"# {text}" for text in folded(_described(option), 116))]
            lines.append(
                ("" if option.use == SEED else "# ") + f"{option.name}={written(option.default)}"
            )
    return "\n".join(lines) + "\n"


def _described(option: Option) -> str:
    has_range = (
        option.kind == NUMBER
        and option.highest != options.SECONDS_MAX
        and str(option.highest) not in option.about
    )
    return option.about + (f" Range: {option.lowest} to {option.highest}." if has_range else "")


def accounts() -> str:
    """sysusers.d(5): the accounts of the roster."""
    users = sorted({row.account for row in roster.ROSTER if row.account.number != 0})
    lines = [
        "# Accounts of unprivileged workers, see sysusers.d(5). Without them the agent uses the"
        " numbers."
    ]
    lines += [f'u {account.name} {account.number} "Azure guest agent" - -' for account in users]
    return "\n".join([*lines, f"g {roster.BUS_GROUP.name} {roster.BUS_GROUP.number}"]) + "\n"


def completion() -> str:
    """bash completion of both commands."""
    own = [
        f"-{word.name}" + (":" if word.value == arguments.NEEDED else "")
        for word in (*arguments.COMMANDS, *arguments.FLAGS)
        if word.when == arguments.HERE and word.name != "debug"
    ]
    listing = ["extensions", "restart", *(f"--{word.name}" for word in ps_arguments.OPTIONS)]
    workers = " ".join(row.name for row in roster.ROSTER)
    cases = [
        f"        --{word.name}) words='{' '.join(word.choices)}' ;;"
        for word in ps_arguments.OPTIONS
        if word.choices
    ]
    return (
        "\n".join(
            [
                "# bash completion of waagent and waagent-ps",
                "_waagent() {",
                "    local words",
                f"    words='{' '.join(own)}'",
                (
                    '    if [ "$3" = -check-configuration ]; then COMPREPLY=($(compgen -f --'
                    ' "$2")); return; fi'
                ),
                '    COMPREPLY=($(compgen -W "$words" -- "$2"))',
                "}",
                "_waagent_ps() {",
                "    local words",
                '    case "$3" in',
                f"        restart) words='{workers}' ;;",
                *cases,
                f"        *) words='{' '.join(listing)}' ;;",
                "    esac",
                '    COMPREPLY=($(compgen -W "$words" -- "$2"))',
                "}",
                "complete -F _waagent waagent",
                "complete -F _waagent_ps waagent-ps",
            ]
        )
        + "\n"
    )


def waagent_page() -> str:
    """waagent(8)."""
    here = [word for word in arguments.COMMANDS if word.when == arguments.HERE]
    later = [f"-{word.name}" for word in arguments.COMMANDS if word.when == arguments.LATER]
    synopsis = "[-verbose] [-force] [-configuration-path:PATH] COMMAND"
    sections = [
        ("SYNOPSIS", [".B waagent", safe(synopsis)]),
        ("DESCRIPTION", [safe(_WAAGENT_ABOUT)]),
        (
            "COMMANDS",
            [
                *items((arguments.form(word), word.about) for word in here),
                ".PP",
                safe(f"Known, not in this version: {', '.join(later)}."),
            ],
        ),
        ("OPTIONS", items((arguments.form(word), word.about) for word in arguments.FLAGS)),
        ("SIGNALS", items(_SIGNALS)),
        ("ENVIRONMENT", items(_ENVIRONMENT)),
        ("EXIT STATUS", ["0 done, 1 failed or not understood."]),
        ("FILES", items(_FILES)),
    ]
    about = "guest agent for Linux VMs on Azure"
    return page("waagent", 8, about, sections, "waagent-ps(1), waagent-lab(1), waagent.conf(5)")


def waagent_ps_page() -> str:
    """waagent-ps(1)."""
    commands = [
        (f"waagent-ps {command.form}".strip(), command.about) for command in ps_arguments.COMMANDS
    ]
    flags = [
        (f"--{word.name} {word.value_name}".strip(), word.about) for word in ps_arguments.OPTIONS
    ]
    sections = [
        ("SYNOPSIS", [".B waagent-ps", safe("[OPTION...] [COMMAND]")]),
        ("DESCRIPTION", [safe(_PS_ABOUT)]),
        ("COMMANDS", items(commands)),
        ("OPTIONS", items(flags)),
        ("STATES", items(_STATES)),
        ("EXIT STATUS", items((str(number), about) for number, about in ps_arguments.EXITS)),
        ("FILES", items(_PS_FILES)),
    ]
    return page("waagent-ps", 1, "what the Azure guest agent is doing", sections, "waagent(8)")


def configuration_page() -> str:
    """waagent.conf(5)."""
    sections = [("DESCRIPTION", [safe(_SYNTAX), ".PP", safe(_CHECKING)])]
    for title, rows in options.GROUPS:
        shown = [
            (_entry(option), _described(option)) for option in rows if option.use in (SEED, IN_USE)
        ]
        if shown:
            sections.append((title.upper(), items(shown)))
    kept = [option.name for _, rows in options.GROUPS for option in rows if option.use == KEPT]
    gone = [
        option.name for _, rows in options.GROUPS for option in rows if option.use == options.GONE
    ]
    sections.append(
        (
            "READ WITHOUT EFFECT",
            [
                safe(f"Parsed and shown, without effect in this version: {', '.join(kept)}."),
                ".PP",
                safe(f"Without effect any more: {', '.join(gone)}."),
            ],
        )
    )
    return page("waagent.conf", 5, "configuration of the Azure guest agent", sections, "waagent(8)")


def _entry(option: Option) -> str:
    kind = {SWITCH: "y|n", NUMBER: "number"}.get(
        option.kind, "text" if option.kind == options.TEXT else "y|n|auto"
    )
    return f"{option.name}={kind} (default {written(option.default)})"


def page(
    name: str, section: int, about: str, sections: Iterable[tuple[str, list[str]]], see_also: str
) -> str:
    """A manual page in man(7); each section a title and lines of troff."""
    lines = [
        f'.TH {name.upper()} {section} "" "waagent {__version__}"',
        ".SH NAME",
        safe(f"{name} - {about}"),
    ]
    for title, body in sections:
        lines += [f".SH {title}", *body]
    said = [line for line in lines if line]  # an empty line is a gap in troff
    return "\n".join([*said, ".SH SEE ALSO", safe(see_also)]) + "\n"


def items(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Paragraphs with a head."""
    return [line for head, text in pairs for line in (".TP", f".B {safe(head)}", safe(text))]


def safe(text: str) -> str:
    """``text`` for troff: its special letters are letters."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    sys.exit(main())
