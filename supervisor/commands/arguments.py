"""The words of `waagent`: one table for the parser, the usage text, the manual and the completion.
Pure.

A word may have any number of `-` or `/` before it and is matched whole; values are taken verbatim,
as `--x V`, `--x=V` or `--x:V`. Source: spec/platform.md, section 14; ui.md, section 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from waagent.protocol.base.input_errors import UsageError
from waagent.protocol.base.records import Record

NONE, OPTIONAL, NEEDED = "", "optional", "needed"
HERE, LATER = "here", "later"


class Word(Record):
    """One word of the command line."""

    name: str
    about: str
    is_command: bool = True
    value: str = NONE
    """Whether a value follows: NONE, OPTIONAL or NEEDED."""
    value_name: str = ""
    aliases: tuple[str, ...] = ()
    needs_root: bool = False
    when: str = HERE
    """LATER: known, not in this version."""


COMMANDS: tuple[Word, ...] = (
    Word("help", "show this text", aliases=("h", "usage", "?")),
    Word("version", "show the versions of the agent and of Python"),
    Word("daemon", "run the agent in the foreground, as services do", needs_root=True),
    Word(
        "start", "run the agent in the background and start it again when it dies", needs_root=True
    ),
    Word("stop", "stop the running agent; operations of extensions go on", needs_root=True),
    Word(
        "reload",
        "make the running agent read waagent.conf again and reopen its log",
        needs_root=True,
    ),
    Word(
        "show-configuration",
        "show every option as it is in force; with -verbose also where it was set",
    ),
    Word(
        "check-configuration",
        "name every mistake in waagent.conf, or in FILE, and every missing tool",
        value=OPTIONAL,
        value_name="FILE",
    ),
    Word(
        "take-over",
        "go on from the state of another agent, which is stopped; with -plan only say so",
        needs_root=True,
    ),
    Word(
        "deprovision",
        "make the VM ready to be imaged: host keys, leases, state and logs go; asks first",
        needs_root=True,
    ),
    Word(
        "deprovision+user",
        "the same, and remove the user that was provisioned",
        needs_root=True,
    ),
    Word(
        "serialconsole",
        "configure kernel, boot loader and login for the serial console",
        needs_root=True,
    ),
    Word(
        "install", "install the agent as a service", aliases=("setup",), needs_root=True, when=LATER
    ),
    Word("uninstall", "remove the service", needs_root=True, when=LATER),
    Word("register-service", "register and start the service", needs_root=True, when=LATER),
    Word(
        "collect-logs",
        "collect logs into an archive without secrets",
        value=OPTIONAL,
        value_name="full",
        needs_root=True,
    ),
    Word(
        "setup-firewall",
        "let only root connect to the WireServer",
        value=NEEDED,
        value_name="IP",
        needs_root=True,
        when=LATER,
    ),
    Word("run-exthandlers", "internal to the predecessor", needs_root=True, when=LATER),
)

FLAGS: tuple[Word, ...] = (
    Word("verbose", "say more: decisions in the log, tracebacks on errors", is_command=False),
    Word("force", "do not ask", is_command=False),
    Word(
        "configuration-path",
        "use this file instead of /etc/waagent.conf",
        is_command=False,
        value=NEEDED,
        value_name="PATH",
        aliases=("conf",),
    ),
    Word("root", "work on the system below DIR", is_command=False, value=NEEDED, value_name="DIR"),
    Word("plan", "only say what -deprovision or -take-over would do", is_command=False),
    Word("verify", "only say what is there that an image must not contain", is_command=False),
    Word("json", "print what --plan and --verify say as JSON", is_command=False),
    Word("debug", "accepted and ignored", is_command=False),
)

_BY_NAME: dict[str, Word] = {
    name: word for word in COMMANDS + FLAGS for name in (word.name, *word.aliases)
}


class Line(Record):
    """A command line, understood."""

    command: Word | None
    value: str | None
    """The command's own value."""
    flags: dict[str, str]
    """Flags given, with their value or an empty text."""

    @property
    def is_verbose(self) -> bool:
        return "verbose" in self.flags

    @property
    def root(self) -> str:
        return self.flags.get("root", "/")

    @property
    def configuration_path(self) -> str | None:
        return self.flags.get("configuration-path")


def read_line(words: Sequence[str]) -> Line:
    """What ``words`` ask for; of several commands the last one counts, but help before all. Raises
    UsageError.
    """
    command: Word | None = None
    value: str | None = None
    flags: dict[str, str] = {}
    rest = list(words)
    while rest:
        text = rest.pop(0)
        word, given = _match(text)
        if word is None:
            raise UsageError(f"unknown word {ascii(text)}", "try waagent -help")
        if given is None and word.value == NEEDED:
            if not rest:
                raise UsageError(
                    f"-{word.name} lacks its value", f"write -{word.name}:{word.value_name}"
                )
            given = rest.pop(0)
        elif given is None and word.value == OPTIONAL and rest and _match(rest[0])[0] is None:
            given = rest.pop(0)
        if not word.is_command:
            flags[word.name] = given or ""
        elif command is None or command.name != "help":
            command, value = word, given
    return Line(command, value, flags)


def _match(text: str) -> tuple[Word | None, str | None]:
    """The word that ``text`` is, with the value after its `=` or `:`."""
    bare = text.lstrip("-/")
    if bare in _BY_NAME:
        return _BY_NAME[bare], None
    for mark in sorted((mark for mark in "=:" if mark in bare), key=bare.index):
        name, _, given = bare.partition(mark)
        word = _BY_NAME.get(name)
        if word is not None and word.value != NONE:
            return word, given
    return None, None


def usage() -> str:
    """The usage text."""
    lines = [
        "usage: waagent [-verbose] [-force] [-configuration-path:PATH] COMMAND",
        "",
        "commands:",
    ]
    lines += [_usage_row(word) for word in COMMANDS if word.when == HERE]
    lines += ["", "options:"]
    lines += [_usage_row(word) for word in FLAGS if word.name != "debug"]
    lines += [
        "",
        "known, not in this version:",
        *_wrapped([f"-{word.name}" for word in COMMANDS if word.when == LATER]),
    ]
    lines += ["", "What the agent does: waagent-ps. Manual: waagent(8), waagent.conf(5)."]
    return "\n".join(lines)


def _usage_row(word: Word) -> str:
    head = form(word)
    indent = 30
    first, *more = _wrapped(word.about.split(" "), indent)
    return "\n".join([f"  {head}".ljust(indent) + first.lstrip(), *more])


def form(word: Word) -> str:
    """How a word is written, with its value."""
    if word.value == NEEDED:
        return f"-{word.name}:{word.value_name}"
    return f"-{word.name} [{word.value_name}]" if word.value == OPTIONAL else f"-{word.name}"


def _wrapped(words: Sequence[str], indent: int = 2) -> list[str]:
    lines: list[str] = []
    line = " " * indent
    for word in words:
        if len(line) + len(word) >= 79 and line.strip():
            lines.append(line.rstrip())
            line = " " * indent
        line += word + " "
    return [*lines, line.rstrip()]
