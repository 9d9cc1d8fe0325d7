"""The programs that Role.StateConsumer, Role.ConfigurationConsumer and Role.TopologyConsumer name:
which may be run as root, and how.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from waagent.distro.files import remove_tree
from waagent.distro.operations import records, single
from waagent.distro.paths import Paths
from waagent.protocol.base.errors import ExplainedError

LIMIT_S = 3600.0
_FOLDER = "role-consumers"  # the records of their operations
_KEPT = 4


class Untrusted(ExplainedError):
    """The program is none that root may run, or there is none."""


def run_program(paths: Paths, option: str, program: str, argument: str) -> None:
    """Start ``program`` with one argument, under a shim with a deadline. It is not waited for.
    Raises Untrusted, OperationError, OSError.
    """
    single.start(plan_program(paths, option, program, argument))


def plan_program(paths: Paths, option: str, program: str, argument: str) -> Path:
    """Record that it shall run, for `single.start`; the folder of its records. Raises Untrusted,
    OperationError, OSError.
    """
    refuse_untrusted(paths, option, program)
    folder = _new_folder(paths, option)
    command = f"exec {shlex.quote(str(paths.under(program)))} {shlex.quote(argument)}"
    single.plan_program(paths, folder, option.replace(".", ""), "consume", command, LIMIT_S)
    return folder


def folder_of(paths: Paths, name: str) -> Path:
    """Where the records of the operation ``name`` are."""
    return paths.library / _FOLDER / name


def refuse_untrusted(paths: Paths, option: str, program: str) -> None:
    """Raise Untrusted unless ``program`` is an absolute path of a file, root's own, that nobody
    else may write.
    """
    if not program.startswith("/"):
        raise Untrusted("not an absolute path", f"{option}={program}", "write the whole path")
    file = paths.under(program)
    try:
        facts = os.stat(file)
    except OSError as error:
        raise Untrusted(
            f"no such program ({error.strerror})", f"{option}={program}", "correct the option"
        ) from error
    if not stat.S_ISREG(facts.st_mode) or not facts.st_mode & 0o111:
        raise Untrusted("not an executable file", f"{option}={program}", f"chmod +x {program}")
    if facts.st_uid != 0 or facts.st_mode & 0o022:
        raise Untrusted(
            "others than root may change the program",
            f"{option}={program}",
            f"chown root {program}; chmod go-w {program}",
        )


def _new_folder(paths: Paths, option: str) -> Path:
    """A folder for one run; those of runs that ended long ago go."""
    base = paths.library / _FOLDER
    kind = option.replace(".", "")
    present = sorted(base.glob(f"{kind}-*"), key=lambda folder: folder.stat().st_mtime)
    for old in present[:-_KEPT]:
        if records.observe(old).has_ended:
            remove_tree(old)
    return folder_of(paths, f"{kind}-{os.urandom(6).hex()}")
