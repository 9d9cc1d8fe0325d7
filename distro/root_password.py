"""Takes root's password away, which never means an empty one: nobody logs in as root by password
afterwards.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from waagent.distro import boot_marks
from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished

_LOCKED = b"root:*LOCK*:14600::::::"
_TOOL_LIMIT_S = 60.0

Run = Callable[..., Finished]


def lock_root_password(paths: Paths, family: Family, shadow: str, run: Run) -> None:
    """Make root's password unusable; ``shadow`` (OS.PasswordPath) empty: the distribution's file.
    Owner, mode and label of the file stay. Raises OSError, ToolError.
    """
    if family.lock_root_password and boot_marks.is_running_system(paths):
        run(family.lock_root_password, deadline_s=_TOOL_LIMIT_S)
        return
    file = paths.under(shadow or family.shadow)
    if file.name == "master.passwd":
        wanted = _with_field(file.read_bytes(), 1, b"*")
    else:
        others = [line for line in file.read_bytes().splitlines() if not _is_root(line)]
        wanted = b"\n".join([_LOCKED, *others]) + b"\n"
    facts = file.stat()
    if wanted != file.read_bytes():
        owner = (facts.st_uid, facts.st_gid)
        write_atomic(file, wanted, mode=stat.S_IMODE(facts.st_mode), owner=owner)


def is_locked(paths: Paths, family: Family, shadow: str) -> bool:
    """Whether root has no password by which somebody could log in."""
    try:
        lines = paths.under(shadow or family.shadow).read_bytes().splitlines()
    except OSError:
        return True
    fields = next((line.split(b":") for line in lines if _is_root(line)), [])
    return len(fields) < 2 or fields[1][:1] in (b"*", b"!")


def _is_root(line: bytes) -> bool:
    return line.startswith(b"root:")


def _with_field(data: bytes, at: int, value: bytes) -> bytes:
    """master.passwd(5): more fields than shadow has, which must stay."""
    lines = []
    for line in data.splitlines():
        fields = line.split(b":")
        if _is_root(line):
            fields[at] = value
        lines.append(b":".join(fields))
    return b"\n".join(lines) + b"\n"
