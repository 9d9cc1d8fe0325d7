"""The public keys in the text of a `Value`, one line of authorized_keys each. Pure.

People paste what they have: several lines, a base64 text that a mail program has wrapped, the file
that PuTTYgen saves (RFC 4716). A key is complete when its blob is a whole number of length-prefixed
fields (RFC 4253, section 6.6), which is how the parts of a wrapped one are told from a comment.
Source: authorized_keys in sshd(8).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

_TYPE = re.compile(
    r"(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-(?:ssh|ecdsa)-[a-z0-9-]+)(@[a-z0-9.-]+)?\Z"
)
_BLOB = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z")
_CERTIFICATE = "-cert-v"
_SSH2_BEGIN, _SSH2_END = "---- BEGIN SSH2 PUBLIC KEY ----", "---- END SSH2 PUBLIC KEY ----"
_FIELDS_MIN = 2  # the type, and at least one number
_SHOWN = 40


@dataclass(frozen=True)
class Found:
    """What a text held."""

    lines: tuple[str, ...] = ()
    """In OpenSSH's form: options, type, blob, comment."""
    problems: tuple[str, ...] = ()
    """What is no key, each in a few words."""


def public_keys_in(text: str) -> Found:
    """Every key of ``text``; options before a key's type are kept, blank and `#` lines skipped."""
    lines: list[str] = []
    problems: list[str] = []
    for entry in _entries(_without_ssh2(text).splitlines()):
        line = _key_line(entry)
        if line is None:
            problems.append(_problem(" ".join(entry)))
        elif line not in lines:
            lines.append(line)
    return Found(tuple(lines), tuple(problems))


def _problem(text: str) -> str:
    """Why it is none; a private key is not shown."""
    if "PRIVATE KEY" in text:
        return "a private key was sent in the place of a public one"
    return f"{text[:_SHOWN]!r} is no public key in OpenSSH's form"


def _entries(lines: list[str]) -> list[list[str]]:
    """The words of each key: a line without a type goes on what the line before it began."""
    entries: list[list[str]] = []
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if not entries or any(_TYPE.match(word) for word in words):
            entries.append(words)
        else:
            entries[-1].extend(words)
    return entries


def _key_line(words: list[str]) -> str | None:
    """The one line that ``words`` mean; None when they are no key."""
    for at, word in enumerate(words[:-1]):
        if _TYPE.match(word) is None:
            continue
        blob = ""
        for end, part in enumerate(words[at + 1 :], at + 2):
            if _BLOB.match(part) is None:
                break
            blob += part
            if _is_complete(blob, word):
                return " ".join([*words[:at], word, blob, *words[end:]])
    return None


def _is_complete(blob: str, kind: str) -> bool:
    try:
        data = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return False
    name = kind.encode("ascii")
    if data[:4] != len(name).to_bytes(4, "big") or data[4 : 4 + len(name)] != name:
        return False
    if _CERTIFICATE in kind:  # holds numbers without a length; sshd tells whether it is whole
        return True
    fields = 0
    while data:
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size or not size:
            return False
        data = data[4 + size :]
        fields += 1
    return fields >= _FIELDS_MIN


def _without_ssh2(text: str) -> str:
    """``text`` with every RFC 4716 block as a line of type and blob."""
    made: list[str] = []
    block: list[str] | None = None
    for line in text.splitlines():
        if line.strip() == _SSH2_BEGIN:
            block = []
        elif line.strip() == _SSH2_END and block is not None:
            made.append(_of_ssh2(block))
            block = None
        elif block is None:
            made.append(line)
        else:
            block.append(line.strip())
    return "\n".join([*made, *(block or ())])


def _of_ssh2(lines: list[str]) -> str:
    """Type and blob of a block: its headers (`Name: value`, with `\\` going on) are left out."""
    is_header = False
    parts = []
    for line in lines:
        is_header = ":" in line or is_header
        if not is_header:
            parts.append(line)
        elif not line.endswith("\\"):
            is_header = False
    blob = "".join(parts)
    try:
        data = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return blob
    size = int.from_bytes(data[:4], "big")
    return f"{data[4 : 4 + size].decode('ascii', 'replace')[:_SHOWN]} {blob}"
