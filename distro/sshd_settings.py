"""What sshd's configuration says and where: the lines in the order in which sshd reads them, its
Include files among them. Standard library only; sshd itself (`sshd -T`) has the last word.

Source: sshd_config(5): the first value counts, a Match block overrides, Include stands for its
files in the order of their names, a relative one is below /etc/ssh.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path

from waagent.distro.paths import Paths
from waagent.protocol.base.records import Record

BEGIN, END = "# waagent: begin", "# waagent: end"
"""Around our lines in a file of somebody else's; BEGIN is also the first line of our own file."""
DROP_IN = "10-waagent.conf"
VENDOR_FOLDER = "/usr/etc/ssh"
_EARLIER = ("00-waagent.conf", "00-00-waagent.conf", "!-waagent.conf")
_DEPTH_LIMIT = 8
_FILE_LIMIT_BYTES = 1024 * 1024


class Setting(Record):
    """One active line."""

    option: str
    """Lower case."""
    value: str
    file: Path
    line: int
    is_in_match: bool
    is_ours: bool


class Include(Record):
    """One pattern of an Include line, before the lines of its files."""

    folder: Path
    pattern: str
    is_in_match: bool


def main_file(paths: Paths, ssh_folder: str) -> Path | None:
    """The file with which sshd begins: the administrator's, else the vendor's."""
    for folder in (ssh_folder, VENDOR_FOLDER):
        file = paths.under(folder) / "sshd_config"
        if file.is_file():
            return file
    return None


def is_vendors(paths: Paths, file: Path) -> bool:
    """Whether ``file`` belongs to the system's packages and is not for us to change."""
    return Path(os.path.realpath(paths.under("/usr"))) in Path(os.path.realpath(file)).parents


def read_settings(paths: Paths, main: Path, ssh_folder: str) -> tuple[Setting | Include, ...]:
    """Every active line of ``main`` and of what it includes, as sshd reads them."""
    return tuple(_lines_of(paths, main, ssh_folder, False, 0))


def _lines_of(
    paths: Paths, file: Path, ssh_folder: str, is_in_match: bool, depth: int
) -> Iterator[Setting | Include]:
    is_ours = False
    for number, line in enumerate(text_of(file).splitlines(), 1):
        if line.strip() in (BEGIN, END):
            is_ours = line.strip() == BEGIN
        words = line.replace("=", " ", 1).split()
        if not words or words[0].startswith("#"):
            continue
        option, value = words[0].lower(), " ".join(words[1:]).strip('"')
        if option == "match":
            is_in_match = value.lower() != "all"
        elif option != "include":
            yield Setting(option, value, file, number, is_in_match, is_ours)
        else:
            for word in words[1:]:
                yield from _included(paths, word.strip('"'), ssh_folder, is_in_match, depth)


def _included(
    paths: Paths, word: str, ssh_folder: str, is_in_match: bool, depth: int
) -> Iterator[Setting | Include]:
    folder, pattern = posixpath.split(posixpath.join(ssh_folder, word))
    place = paths.under(folder)
    yield Include(place, pattern, is_in_match)
    if depth >= _DEPTH_LIMIT:
        return
    for name in names_in(place, pattern):
        yield from _lines_of(paths, place / name, ssh_folder, is_in_match, depth + 1)


def names_in(folder: Path, pattern: str) -> list[str]:
    """The files of an Include, in the order in which sshd reads them."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))


def text_of(file: Path) -> str:
    """The text of a file; empty when there is none."""
    try:
        with file.open("rb") as stream:
            return stream.read(_FILE_LIMIT_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def winning_drop_in(
    paths: Paths, lines: tuple[Setting | Include, ...], options: frozenset[str]
) -> Path | None:
    """The file of ours that sshd would read before anything that sets one of ``options``; None
    where no Include stands early enough.
    """
    for at, line in enumerate(lines):
        if isinstance(line, Setting):
            if line.option in options and not line.is_ours and not line.is_in_match:
                return None
            continue
        if line.is_in_match or is_vendors(paths, line.folder):
            continue
        others = [
            later.file.name
            for later in lines[at:]
            if isinstance(later, Setting)
            and later.file.parent == line.folder
            and later.option in options
            and not later.is_ours
        ]
        for name in (DROP_IN, *_EARLIER):
            is_read = fnmatch.fnmatchcase(name, line.pattern)
            if is_read and all(name < other for other in others):
                return line.folder / name
    return None


def without_block(text: str) -> str:
    """A file's text without the lines between our marks."""
    kept: list[str] = []
    is_ours = False
    for line in text.splitlines():
        if line.strip() == BEGIN:
            is_ours = True
        elif line.strip() == END and is_ours:
            is_ours = False
        elif not is_ours:
            kept.append(line)
    return "".join(line + "\n" for line in kept)


def lines_in_block(text: str) -> list[str]:
    """Our lines, without the marks."""
    ours: list[str] = []
    is_ours = False
    for line in text.splitlines():
        if line.strip() in (BEGIN, END):
            is_ours = line.strip() == BEGIN
        elif is_ours and line.strip():
            ours.append(line)
    return ours


def with_block(text: str, lines: tuple[str, ...]) -> str:
    """The text with our lines in a marked block at its top (never behind a Match); an older block
    goes.
    """
    block = "".join(line + "\n" for line in (BEGIN, *lines, END)) if lines else ""
    return block + without_block(text)


def first_of(
    lines: tuple[Setting | Include, ...], option: str, *, is_in_match: bool
) -> Setting | None:
    """The line that sets ``option`` first, outside or inside of Match blocks."""
    for line in lines:
        if isinstance(line, Setting) and (line.option, line.is_in_match) == (option, is_in_match):
            return line
    return None
