"""The syntax of waagent.conf: bytes become assignments and complaints, and nothing raises.

Source: spec/configuration.md, section 2 (the rules below it). Standard library only.
"""

from __future__ import annotations

import re

from waagent.protocol.base.records import Record

_COMMENT = re.compile(r"(?:^|\s)#.*", re.DOTALL)


class Assignment(Record):
    """`Key=value` in one line of a file. ``value`` is None where the line says `None`: use the
    default.
    """

    line: int
    key: str
    value: str | None


class Complaint(Record):
    """A line that is no assignment, or a doubtful one."""

    line: int
    key: str
    problem: str
    remedy: str


def read_lines(data: bytes) -> tuple[list[Assignment], list[Complaint]]:
    """Every assignment of a file in its order, and what is wrong with the other lines."""
    assignments: list[Assignment] = []
    complaints: list[Complaint] = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        text = raw.decode("utf-8", errors="replace").strip()
        if not text or text.startswith("#"):
            continue
        key, equals, rest = text.partition("=")
        key = key.strip()
        if not equals or not key:
            complaints.append(
                Complaint(
                    number,
                    "-",
                    f"{shown(text)} is no Name=value",
                    "correct the line, or start it with #",
                )
            )
            continue
        if "\ufffd" in text:
            complaints.append(
                Complaint(number, shown_key(key), "the line is not UTF-8", "write it in UTF-8")
            )
        value, is_whole = _value_of(rest.strip())
        if not is_whole:
            complaints.append(
                Complaint(
                    number,
                    shown_key(key),
                    "a quote is not closed, it was left out",
                    "write two quotes or none",
                )
            )
        assignments.append(Assignment(number, key, None if value == "None" else value))
    return assignments, complaints


def _value_of(text: str) -> tuple[str, bool]:
    """The value without comment and quotes; False when a quote was opened and never closed."""
    quote = text[:1]
    if quote in ('"', "'"):
        end = text.find(quote, 1)
        after = text[end + 1 :] if end > 0 else ""
        if end > 0 and not _COMMENT.sub("", after).strip() and (not after or after[0].isspace()):
            return text[1:end], True
    bare = _COMMENT.sub("", text).strip()
    stripped = bare.strip('"').strip()
    return stripped, bare.count('"') % 2 == 0


def shown(text: str) -> str:
    """``text`` fit for one line of a message: quoted, printable, cut."""
    cut = text if len(text) <= 60 else text[:57] + "..."
    return ascii(cut)


def shown_key(key: str) -> str:
    """A key fit for a message: itself where it looks like one."""
    return key if re.fullmatch(r"[A-Za-z0-9._-]{1,80}", key) else shown(key)
