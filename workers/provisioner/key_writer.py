"""A program of its own, told by one JSON object on standard input: writes one file of a user.

It becomes the user before it touches the file (privileges are dropped in this process, never in the
worker), goes down to it one folder at a time by descriptors, and follows no link, so that nothing
in a home that came with the image can lead it elsewhere. Input: {"uid", "gid", "base", "folders":
[names], "name", "lines": [texts] | "content": text, "mode", "folder_mode"}. ``base`` is opened as
it is; ``folders`` below it are made when missing. With ``lines`` those that are missing are added.
Exit status: 0 written or already so; 1 refused (why: standard error).
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any

LIMIT_BYTES = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """Something else stands where the file belongs; the text says what."""


def main() -> int:
    """Write what standard input says; the exit status."""
    told = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(told["gid"])
    os.setuid(told["uid"])
    os.umask(0o077)
    try:
        write(told)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{told['name']}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def write(told: dict[str, Any]) -> None:
    """Go down to the file and make it what is wanted. Raises Refused, OSError."""
    folder = os.open(told["base"], _FOLDER)
    for name in told["folders"]:
        folder = _go_down(folder, name, told["uid"], told["folder_mode"])
    present = _read(folder, told["name"])
    if "lines" in told:
        wanted = "".join(line + "\n" for line in merged(present.splitlines(), told["lines"]))
    else:
        wanted = told["content"]
    if wanted != present or not present:
        _replace(folder, told["name"], wanted.encode("utf-8", "surrogateescape"), told["mode"])
    else:
        descriptor = os.open(
            told["name"], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
        )
        os.fchmod(descriptor, told["mode"])
        os.close(descriptor)


def merged(present: list[str], wanted: list[str]) -> list[str]:
    """What was there, each line once in its order, then what is missing of ``wanted``."""
    lines: dict[str, str] = {}
    for line in [*present, *wanted]:
        if line.strip():
            lines.setdefault(" ".join(line.split()), line)
    return list(lines.values())


def _go_down(folder: int, name: str, uid: int, mode: int) -> int:
    if "/" in name or name in ("", ".", ".."):
        raise Refused(f"{name!r} is not the name of a folder")
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
        os.chmod(name, mode, dir_fd=folder)
    except FileExistsError:
        pass  # the next line tells whether it is a folder
    below = os.open(name, _FOLDER, dir_fd=folder)
    facts = os.fstat(below)
    if facts.st_uid != uid:
        raise Refused(f"{name} belongs to uid {facts.st_uid}")
    if facts.st_mode & 0o022 and uid != 0:
        # sshd refuses keys in a folder that others may write
        os.fchmod(below, stat.S_IMODE(facts.st_mode) & ~0o022)
    os.close(folder)
    return below


def _read(folder: int, name: str) -> str:
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except FileNotFoundError:
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{name} is not a regular file")
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise Refused(f"{name} has more than {LIMIT_BYTES} bytes")
    return data.decode("utf-8", "surrogateescape")


def _replace(folder: int, name: str, data: bytes, mode: int) -> None:
    temporary = f".waagent-{os.getpid()}"
    descriptor = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
        dir_fd=folder,
    )
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)
