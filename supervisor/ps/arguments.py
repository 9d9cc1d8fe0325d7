"""The words of `waagent-ps`: one table for the parser, the usage text, the manual and the
completion. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from waagent.protocol.base.input_errors import UsageError
from waagent.protocol.base.records import Record


class Word(Record):
    """An option; ``value_name`` when a value follows, ``choices`` when only these are taken."""

    name: str
    about: str
    value_name: str = ""
    choices: tuple[str, ...] = ()


class Command(Record):
    """A command and the words behind it."""

    form: str
    about: str


OPTIONS: tuple[Word, ...] = (
    Word("json", "print everything as JSON, schema 1"),
    Word("metrics", "print figures as OpenMetrics text, for a scrape or a textfile collector"),
    Word(
        "wide",
        "also CPU, last exit, uid, capabilities and fence, and what this machine lacks; by itself"
        " from 110 columns on",
    ),
    Word("watch", "every 2 s anew; without a terminal one line for each change"),
    Word(
        "wait",
        "wait until the VM is provisioned, or until no extension operation is under way",
        "WHAT",
        ("provisioned", "extensions"),
    ),
    Word("timeout", "give up waiting after S seconds, exit 6", "S"),
    Word("all", "with extensions: every operation known, not only the last of each handler"),
    Word(
        "color",
        "auto: on a terminal, without NO_COLOR, with TERM other than dumb",
        "WHEN",
        ("auto", "always", "never"),
    ),
    Word("root", "look at the system below DIR", "DIR"),
    Word("help", "show this text"),
    Word("version", "show the version"),
)

COMMANDS: tuple[Command, ...] = (
    Command("", "the workers"),
    Command("extensions", "the last operation of each extension handler"),
    Command("extensions stop NAME", "end what runs of a handler; needs root"),
    Command("extensions reset NAME", "try again what failed of a handler; needs root"),
    Command("restart NAME", "replace a worker; needs root"),
)

EXITS: tuple[tuple[int, str], ...] = (
    (0, "well; with --wait: reached"),
    (
        1,
        (
            "a worker is HUNG, in BACKOFF or PARKED; with extensions: the last operation of some"
            " handler failed; with --wait: failed"
        ),
    ),
    (2, "the command line was not understood, or there is no such worker or handler"),
    (3, "the supervisor does not answer; what is shown comes from the state file and /proc"),
    (4, "not permitted"),
    (6, "with --wait: time over"),
)

_BY_NAME = {word.name: word for word in OPTIONS}


class Line(Record):
    """A command line, understood."""

    command: str
    """list, extensions, stop, reset or restart."""
    name: str
    options: dict[str, str]

    def has(self, option: str) -> bool:
        """Whether ``option`` was given."""
        return option in self.options


def read_line(words: Sequence[str]) -> Line:
    """What ``words`` ask for. Raises UsageError."""
    options: dict[str, str] = {}
    plain: list[str] = []
    rest = list(words)
    while rest:
        text = rest.pop(0)
        if not text.startswith("-"):
            plain.append(text)
            continue
        name, equals, given = text.lstrip("-").partition("=")
        word = _BY_NAME.get("help" if name == "h" else name)
        if word is None or (equals and not word.value_name):
            raise UsageError(f"unknown option {ascii(text)}", "try waagent-ps --help")
        if word.value_name and not equals:
            if not rest:
                raise UsageError(
                    f"--{word.name} lacks its value", f"write --{word.name} {word.value_name}"
                )
            given = rest.pop(0)
        if word.choices and given not in word.choices:
            raise UsageError(
                f"--{word.name} {ascii(given)}", f"write one of {' '.join(word.choices)}"
            )
        options[word.name] = given
    return _with_command(plain, options)


def _with_command(plain: Sequence[str], options: dict[str, str]) -> Line:
    try:
        seconds = float(options.get("timeout", "1"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise UsageError(f"--timeout {ascii(options['timeout'])}", "write a number of seconds")
    if not plain:
        return Line("list", "", options)
    if plain[0] == "extensions" and len(plain) == 1:
        return Line("extensions", "", options)
    if plain[0] == "extensions" and len(plain) == 3 and plain[1] in ("stop", "reset"):
        return Line(plain[1], plain[2], options)
    if plain[0] == "restart" and len(plain) == 2:
        return Line("restart", plain[1], options)
    raise UsageError(f"unknown command {ascii(' '.join(plain))}", "try waagent-ps --help")


def usage() -> str:
    """The usage text."""
    lines = ["usage: waagent-ps [OPTION...] [COMMAND]", "", "commands:"]
    lines += [f"  {command.form or '(none)':<22} {command.about}" for command in COMMANDS]
    lines += ["", "options:"]
    for word in OPTIONS:
        head = f"--{word.name} {word.value_name}".strip()
        first, *more = folded(word.about, 54)
        lines += [f"  {head:<22} {first}", *(" " * 25 + text for text in more)]
    lines += ["", "exit status:"]
    for number, about in EXITS:
        first, *more = folded(about, 70)
        lines += [f"  {number}  {first}", *("     " + text for text in more)]
    return "\n".join(lines)


def folded(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` letters."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
