"""Custom data: kept binary-safe, and on request executed once, in a process tree of its own that
outlives the agent.

Source: spec/provisioning.md §7 with its Rule, traps 24, 33; design §7 (operations).
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro.files import make_folder, write_atomic
from waagent.distro.operations import records, single
from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.workers.provisioner.custom_data_faults import cause_of_failure
from waagent.workers.provisioner.identity import is_executable_place
from waagent.workers.provisioner.plan import Options

if TYPE_CHECKING:
    from waagent.protocol.base.secret import Secret

FILE_NAME = "CustomData"
FOLDER = "custom-data"  # its operation's records
NAME = "CustomData"
_TOLD = "told"
_LIMIT_S = 24 * 3600.0  # an installation on the smallest VM takes hours
_LOOKED_AT_BYTES = 4096
_SHOWN_BYTES = 1500
_ELSEWHERE = (
    "/run/waagent/custom-data",
    "/dev/shm/waagent-custom-data",
    "/var/tmp/waagent-custom-data",
)


def save_custom_data(
    paths: Paths, encoded: Secret | None, options: Options, log: Log
) -> Path | None:
    """Write `<lib>/CustomData` (0600, 0700 when it will be executed); None when there is none.

    What cannot be decoded is kept as it came, and not executed: that is no failure of provisioning.
    """
    from waagent.protocol.ovf import OvfError, decode_custom_data

    if encoded is None:
        return None
    file = paths.library / FILE_NAME
    data, mode = encoded.reveal().encode("utf-8"), 0o600
    if options.decode_custom_data or options.execute_custom_data:
        try:
            data = decode_custom_data(encoded)
            mode = 0o700 if options.execute_custom_data else 0o600
        except OvfError as error:
            log.warning("custom data kept as it came: %s", error)
    write_atomic(file, data, mode=mode)
    log.info("saved custom data file=%s bytes=%d", file, len(data))
    return file if mode == 0o700 else None


def plan_execution(paths: Paths, file: Path) -> None:
    """Record that ``file`` shall be executed: before the marker stands, so that it is neither lost
    nor done twice.
    """
    folder = paths.library / FOLDER
    if records.observe(folder).state not in ("absent", "planned"):
        shutil.rmtree(folder)  # of an earlier provisioning of this disk
    command = shlex.quote(str(_executable_copy(paths, file)))
    single.plan_program(paths, folder, NAME, "execute", command, _LIMIT_S)


def is_settled(paths: Paths) -> bool:
    """Whether nothing is to be executed, or its end was told."""
    folder = paths.library / FOLDER
    return records.observe(folder).state == "absent" or (folder / _TOLD).exists()


def note_told(paths: Paths) -> None:
    """Remember that its end was told; without room on the disk it is told again at the next
    start.
    """
    with contextlib.suppress(OSError):
        write_atomic(paths.library / FOLDER / _TOLD, b"")


def start_execution(paths: Paths) -> None:
    """Start what was planned and has not run. Harmless when it ran or runs."""
    folder = paths.library / FOLDER
    if records.observe(folder).state == "planned":
        single.start(folder)


def is_over(paths: Paths) -> bool:
    """Whether it ran to its end, or was lost."""
    return records.observe(paths.library / FOLDER).state in ("finished", "lost", "absent")


def tell_end(paths: Paths, log: Log) -> None:
    """Log how it ended, with the end of what it wrote; a failure with its cause, and what to do."""
    seen = records.observe(paths.library / FOLDER)
    said = []
    for name, kept in (("stdout", seen.stdout), ("stderr", seen.stderr)):
        text = (kept.head + kept.tail)[-_SHOWN_BYTES:].decode("utf-8", "replace").strip()
        if text:
            said.append(f" {name}={text!r}")
    if seen.succeeded:
        log.info("custom data was executed: success%s", "".join(said))
        return
    file = paths.library / FILE_NAME
    try:
        with file.open("rb") as stream:
            cause = cause_of_failure(stream.read(_LOOKED_AT_BYTES), _exists_below(paths))
    except OSError as error:
        cause = f"it cannot be read ({error.strerror})"
    log.warning(
        "custom data failed: %s%s: %s: correct it, and try it on this VM with: sudo %s%s",
        records.describe_end(seen) or "it did not end",
        f" ({cause})" if cause else "",
        file,
        file,
        "".join(said),
    )


def _exists_below(paths: Paths) -> Callable[[str], bool]:
    return lambda program: paths.under(program).exists()


def _executable_copy(paths: Paths, file: Path) -> Path:
    """``file`` itself, or a copy where programs may be executed (trap: /var on noexec)."""
    if is_executable_place(file.parent):
        return file
    for name in _ELSEWHERE:
        folder = paths.under(name)
        make_folder(folder, 0o700)
        if is_executable_place(folder):
            write_atomic(folder / FILE_NAME, file.read_bytes(), mode=0o700)
            return folder / FILE_NAME
    return file
