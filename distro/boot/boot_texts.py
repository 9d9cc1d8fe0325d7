"""The texts of boot configuration with an argument or a line more. Pure: text in, text out; a text
that says it already comes back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Edit = Callable[[str], str]

_ASSIGNMENT = r"^[ \t]*(?:export[ \t]+)?{name}="


def with_arguments(present: str, wanted: Iterable[str]) -> str:
    """Kernel arguments with those of ``wanted`` that are missing.

    `console=ttyS0` counts as there whatever its speed. The last `console=` becomes /dev/console, so
    a screen's is put before the serial ones that are there.
    """
    words = present.split()
    for argument in wanted:
        key = argument.partition(",")[0]
        if any(word.partition(",")[0] == key for word in words):
            continue
        serial = [at for at, word in enumerate(words) if re.match(r"console=tty(S|AMA|u)", word)]
        is_screen = argument.startswith("console=tty") and not re.match(r"console=tty\D", argument)
        words.insert(serial[0] if is_screen and serial else len(words), argument)
    if words == present.split():
        return present
    return " ".join(words)


def shell_value(text: str, name: str) -> str | None:
    """What the last assignment of ``name`` gives it; None when there is none."""
    found = None
    for line in text.splitlines():
        match = re.match(_ASSIGNMENT.format(name=name) + r"(.*)$", line)
        if match:
            found = _unquoted(match.group(1))
    return found


def with_shell_value(text: str, name: str, value: str) -> str:
    """The shell-like text in which ``name`` has ``value``: its last assignment exchanged, or one
    added at the end.
    """
    if shell_value(text, name) == value:
        return text
    lines = text.splitlines()
    pattern = re.compile(_ASSIGNMENT.format(name=name))
    at = max((number for number, line in enumerate(lines) if pattern.match(line)), default=None)
    line = f'{name}="{value}"'
    if at is None:
        lines.append(line)
    else:
        lines[at] = line
    return "\n".join(lines) + "\n"


def with_grub2_arguments(text: str, name: str, wanted: Iterable[str]) -> str:
    """/etc/default/grub with kernel arguments in the variable ``name``."""
    return with_shell_value(text, name, with_arguments(shell_value(text, name) or "", wanted))


def with_grub1_arguments(text: str, wanted: Iterable[str]) -> str:
    """menu.lst with kernel arguments on each `kernel` line that is none of Xen's."""
    wanted = tuple(wanted)

    def changed(line: str) -> str:
        match = re.match(r"([ \t]*kernel[ \t]+\S+)(.*)$", line)
        if match is None or "xen" in match.group(1):
            return line
        said = match.group(2).strip()
        more = with_arguments(said, wanted)
        return line if more == said else f"{match.group(1)} {more}"

    return _by_line(text, changed)


def with_grub1_serial(text: str, speed: int) -> str:
    """menu.lst that shows its menu on the serial line, too."""
    lines = text.splitlines()
    first_title = next(
        (at for at, line in enumerate(lines) if re.match(r"[ \t]*title\b", line)), len(lines)
    )
    head = lines[:first_title]
    for word, line in (
        ("serial", f"serial --unit=0 --speed={speed}"),
        ("terminal", "terminal --timeout=5 serial console"),
    ):
        if not any(re.match(rf"[ \t]*{word}\b", one) for one in head):
            head.append(line)
    # a splash image is for a screen alone
    made = "\n".join([*head, *lines[first_title:]]) + "\n"
    return text if made.rstrip("\n") == text.rstrip("\n") else made


def with_bls_arguments(text: str, wanted: Iterable[str]) -> str:
    """A Boot Loader Specification entry with kernel arguments on its `options` line."""
    wanted = tuple(wanted)
    if not re.search(r"(?m)^options\s", text):
        return text.rstrip("\n") + "\noptions " + with_arguments("", wanted) + "\n"

    def changed(line: str) -> str:
        match = re.match(r"(options[ \t]+)(.*)$", line)
        if match is None:
            return line
        more = with_arguments(match.group(2), wanted)
        return line if more == match.group(2) else match.group(1) + more

    return _by_line(text, changed)


def with_inittab_getty(text: str, line_name: str, speed: int) -> str:
    """inittab with a getty on the serial line, unless one is there."""
    if re.search(rf"(?m)^[^#\n]*\b{line_name}\b", text):
        return text
    line = f"S0:12345:respawn:/sbin/agetty -L {speed} {line_name} vt102"
    return (text.rstrip("\n") + "\n" if text else "") + line + "\n"


def with_line(text: str, line: str) -> str:
    """The text with that line."""
    if line in text.splitlines():
        return text
    return (text.rstrip("\n") + "\n" if text.strip() else "") + line + "\n"


def with_bsd_serial_tty(text: str, line_name: str) -> str:
    """/etc/ttys with a login on the serial line: `off`, `onifconsole` become `on`."""

    def changed(line: str) -> str:
        if not re.match(rf"{line_name}\s", line):
            return line
        return re.sub(r"(?<=\s)(off|onifconsole|onifexists)(?=\s|$)", "on", line, count=1)

    return _by_line(text, changed)


def _by_line(text: str, changed: Edit) -> str:
    lines = text.splitlines()
    made = [changed(line) for line in lines]
    return text if made == lines else "\n".join(made) + "\n"


def _unquoted(text: str) -> str:
    text = text.strip()
    if text[:1] in ("'", '"'):
        return text[1 : text.find(text[0], 1) if text.find(text[0], 1) > 0 else len(text)]
    return text.partition(" ")[0].partition("#")[0]
