"""What a shim is told, and the records it leaves: `started.json`, `exit.json`. No json, typing or
pathlib: 1.8 MiB a shim.

The plan crosses as ``key=value`` texts separated by NUL, the last one ``end``: all values are
arguments of system calls and so hold no NUL. What is cut off lacks the end and is no plan.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from waagent.distro import atomic
from waagent.distro.cgroups.groups import Group

STARTED, EXIT, LOCK, OUTPUT, RESERVE = "started.json", "exit.json", "lock", "output", ".reserve"
RESERVE_BYTES = 32 * 1024  # given up for the records when the disk is full
# an observer holds the lock for microseconds, a dying child for milliseconds
_LOCK_TRIES, _LOCK_PAUSE_S = 40, 0.05
_FULL = (errno.ENOSPC, errno.EDQUOT)
LISTS = ("own_folder", "hidden", "agent_pid", "writable", "readable", "capability")
"""Of the sandbox: what comes more than once."""


class PlanError(Exception):
    """What came on stdin is not a whole plan; nothing was run."""


class Plan:
    """One operation as the shim sees it. Field names are those of operations.Spec."""

    def __init__(self, texts: list[str]) -> None:
        self.values: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.shim_groups: list[Group] = []
        self.command_groups: list[Group] = []
        self.lists: dict[str, list[str]] = {key: [] for key in LISTS}
        for text in texts:
            key, _, value = text.partition("=")
            if key in self.lists:
                self.lists[key].append(value)
            elif key == "environment":
                name, _, content = value.partition("=")
                self.environment[name] = content
            elif key in ("shim_group", "command_group"):
                version, controllers, folder = value.split("|", 2)
                group = (int(version), tuple(controllers.split(",")) if controllers else (), folder)
                (self.shim_groups if key == "shim_group" else self.command_groups).append(group)
            else:
                self.values[key] = value

    def number(self, key: str) -> int | None:
        """A whole number; None when it is not limited."""
        text = self.values.get(key, "")
        return int(text) if text else None


def to_bytes(values: list[tuple[str, str]]) -> bytes:
    """The plan as it crosses. Raises PlanError when a value holds a NUL."""
    texts = [f"{key}={value}" for key, value in values]
    if any("\0" in text for text in texts):
        raise PlanError("a value of the plan holds a NUL")
    return os.fsencode("\0".join([*texts, "end"]))


def read_plan(descriptor: int) -> Plan:
    """The plan on ``descriptor``. Raises PlanError when it was cut off."""
    data = b""
    while True:
        part = os.read(descriptor, 65536)
        if not part:
            break
        data += part
    texts = os.fsdecode(data).split("\0")
    if texts.pop() != "end":
        raise PlanError("the plan was cut off")
    return Plan(texts)


def take_lock(folder: int) -> int | None:
    """The operation's lock, held until this process ends or executes something; None when a shim
    has it.
    """
    descriptor = os.open(
        LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder
    )
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
    os.close(descriptor)
    return None


def has_record(folder: int, name: str) -> bool:
    """Whether the record stands; whatever it holds."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_record(folder: int, name: str, fields: dict[str, object]) -> None:
    """Write a record, for good. On a full disk a part of the reserve is given up for it. Raises
    OSError when that does not help.
    """
    data = (to_json(fields) + "\n").encode("ascii")
    try:
        atomic.write_at(folder, name, data)
    except OSError as error:
        if error.errno not in _FULL or not has_record(folder, RESERVE):
            raise
        if name == STARTED:
            # what the command says next would eat all of it, and leave nothing for the exit record
            _halve_reserve(folder)
        else:
            give_up_reserve(folder)
        atomic.write_at(folder, name, data)


def _halve_reserve(folder: int) -> None:
    descriptor = os.open(RESERVE, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.ftruncate(descriptor, RESERVE_BYTES // 2)
    finally:
        os.close(descriptor)


def give_up_reserve(folder: int) -> None:
    """The last record stands: its disk space is free again."""
    if has_record(folder, RESERVE):
        os.unlink(RESERVE, dir_fd=folder)


def to_json(value: object) -> str:
    """JSON of None, truth, numbers, text, lists and maps with text keys."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return '"' + "".join(_escaped(character) for character in value) + '"'
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{to_json(key)}: {to_json(inner)}" for key, inner in value.items())
            + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(to_json(inner) for inner in value) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON")


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"
    return f"\\u{code:04x}"
