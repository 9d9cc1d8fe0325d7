"""Makes waagent-lab(1) from the parser of its command line; a test compares the file with it.

`python -m waagent.lab.manual_page` writes it into the checkout, with --check it only looks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from waagent.lab import commands
from waagent.supervisor.commands.manual_pages import items, page, safe

FILE = "docs/man/waagent-lab.1"
_EXITS = (
    ("0", "done"),
    ("1", "it failed"),
    ("2", "the command line was not understood"),
    ("3", "the box could not be made; the message names what is missing"),
)


def lab_page() -> str:
    """waagent-lab(1)."""
    parser = commands.parser()
    sections = [
        ("SYNOPSIS", [".B waagent\\-lab", safe("COMMAND [OPTION...]")]),
        ("DESCRIPTION", [safe(str(parser.description))]),
    ]
    for name, about, command in _commands(parser):
        options = [
            (_form(one), one.help or "")
            for one in command._actions
            if not isinstance(one, argparse._HelpAction) and one.help != argparse.SUPPRESS
        ]
        sections.append((f"COMMAND {name.upper()}", [safe(about + "."), *items(options)]))
    sections.append(("EXIT STATUS", items(_EXITS)))
    about = "an emulated Azure platform, for development"
    return page("waagent-lab", 1, about, sections, "waagent(8), waagent-ps(1)")


def _commands(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Name, help and parser of every command, those of commands too."""
    for choices in parser._actions:
        if isinstance(choices, argparse._SubParsersAction):
            helps = {one.dest: one.help or "" for one in choices._choices_actions}
            for name, command in choices.choices.items():
                below = list(_commands(command))
                for more, about, found in below:
                    yield f"{name} {more}", about, found
                if not below:
                    yield name, helps[name], command


def _form(option: argparse.Action) -> str:
    """How an option is written, with its value."""
    value = "" if option.nargs == 0 else str(option.metavar or option.dest.upper())
    return f"{', '.join(option.option_strings)} {value}".strip()


def main(argv: list[str] | None = None) -> int:
    """Write the page; with --check 1 when it is not there as it should be."""
    path = Path(__file__).resolve().parents[1] / FILE
    is_there = path.exists() and path.read_text("ascii") == lab_page()
    if "--check" in (sys.argv[1:] if argv is None else argv):
        if not is_there:
            print(f"{FILE} is not what the parser says")
        return 0 if is_there else 1
    path.write_text(lab_page(), "ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
