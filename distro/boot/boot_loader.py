"""Which files say how this system boots, and how they are changed: each with a backup, and the boot
loader's own configuration made anew from them.

GRUB 2 reads what /etc/default/grub and its drop-ins say only when its configuration is generated;
with Boot Loader Specification entries (Red Hat 8 and later) each kernel has a file of its own;
GRUB 1 reads menu.lst at boot.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from waagent.distro.boot import boot_texts
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished
from waagent.protocol.base.errors import ExplainedError
from waagent.protocol.base.records import Record

GRUB2_DEFAULTS = "/etc/default/grub"
GRUB2_DROP_INS = "/etc/default/grub.d"
CMDLINE, CMDLINE_DEFAULT = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"
BLS_ENTRIES = "/boot/loader/entries"
KERNEL_CMDLINE = "/etc/kernel/cmdline"
GRUB1_FILES = ("/boot/grub/menu.lst", "/boot/grub/grub.conf", "/etc/grub.conf")
GRUB2_MADE = ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg")
BACKUP = ".waagent-bak"
_LIMIT_BYTES = 1024 * 1024
_GENERATE_LIMIT_S = 300.0
_SEARCHED = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

Run = Callable[..., Finished]


class BootError(ExplainedError):
    """The boot configuration cannot be changed."""


class Change(Record):
    """One file, and what becomes of it."""

    file: str
    """Absolute, the root prefix not included."""
    edit: Callable[[str], str]
    is_made: bool = False
    """Made when it is not there."""


def kernel_argument_changes(paths: Paths, wanted: Sequence[str]) -> list[Change]:
    """The files that give the kernel its arguments; none when no boot loader is known here."""
    changes = []
    if paths.under(GRUB2_DEFAULTS).is_file():
        file, name = _grub2_place(paths)
        changes.append(
            Change(file, lambda text: boot_texts.with_grub2_arguments(text, name, wanted))
        )
    entries = paths.under(BLS_ENTRIES)
    if entries.is_dir():
        changes += [
            Change(
                f"{BLS_ENTRIES}/{path.name}",
                lambda text: boot_texts.with_bls_arguments(text, wanted),
            )
            for path in sorted(entries.glob("*.conf"))
        ]
        if paths.under(KERNEL_CMDLINE).is_file():  # for kernels that are installed later
            changes.append(Change(KERNEL_CMDLINE, lambda text: _one_line(text, wanted)))
    if not changes and (file := grub1_file(paths)):
        changes.append(Change(file, lambda text: boot_texts.with_grub1_arguments(text, wanted)))
    return changes


def grub1_file(paths: Paths) -> str:
    """The file of GRUB 1 that is one; empty when there is none."""
    for name in GRUB1_FILES:
        place = paths.under(name)
        if place.is_file() and not place.is_symlink():
            return name
    return ""


def apply(paths: Paths, changes: Sequence[Change]) -> list[str]:
    """Carry out the changes; the files that are others now. Each keeps what it was at first in
    FILE.waagent-bak. Raises OSError.
    """
    changed = []
    for change in changes:
        place = Path(os.path.realpath(paths.under(change.file)))
        if not place.exists() and not change.is_made:
            continue
        before = _text(place)
        after = change.edit(before)
        if after == before and place.exists():
            continue
        if place.exists():
            _back_up(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        mode = place.stat().st_mode & 0o7777 if place.exists() else 0o644
        write_atomic(place, after.encode("utf-8", "surrogateescape"), mode=mode)
        changed.append(change.file)
    return changed


def regenerate_grub2(paths: Paths, run: Run) -> str:
    """Make GRUB's own configuration anew; its file. Raises BootError, ToolError."""
    made = _made_file(paths)
    if _has(paths, "update-grub"):
        argv = ["update-grub"]
    elif _has(paths, "grub2-mkconfig"):
        argv = ["grub2-mkconfig", "-o", made or GRUB2_MADE[0]]
    elif _has(paths, "grub-mkconfig"):
        argv = ["grub-mkconfig", "-o", made or GRUB2_MADE[1]]
    else:
        raise BootError(
            "GRUB's configuration cannot be made anew: no update-grub, no grub2-mkconfig",
            GRUB2_DEFAULTS,
            "install the package that has one (grub2-common, grub2-tools)",
        )
    prefix = [] if paths.root == Path("/") else ["chroot", str(paths.root)]
    run([*prefix, *argv], deadline_s=_GENERATE_LIMIT_S)
    return _made_file(paths) or made


def made_says(paths: Paths, argument: str) -> bool:
    """Whether GRUB's own configuration, or an entry beside it, has that argument."""
    texts = [_text(paths.under(name)) for name in (_made_file(paths),) if name]
    texts += [_text(path) for path in paths.under(BLS_ENTRIES).glob("*.conf")]
    return any(argument in text for text in texts)


def _grub2_place(paths: Paths) -> tuple[str, str]:
    """The file and variable that count: drop-ins are read last and may say it anew; the variable is
    the one for all entries, unless only that for normal ones is there.
    """
    names = [GRUB2_DEFAULTS]
    folder = paths.under(GRUB2_DROP_INS)
    names += [f"{GRUB2_DROP_INS}/{path.name}" for path in sorted(folder.glob("*.cfg"))]
    texts = {name: _text(paths.under(name)) for name in names}
    for variable in (CMDLINE, CMDLINE_DEFAULT):
        holders = [
            name for name in names if boot_texts.shell_value(texts[name], variable) is not None
        ]
        if holders:
            return holders[-1], variable
    return GRUB2_DEFAULTS, CMDLINE


def _made_file(paths: Paths) -> str:
    """GRUB's own configuration; a small one on the EFI partition only points to it."""
    for name in GRUB2_MADE:
        if paths.under(name).is_file():
            return name
    for path in sorted(paths.under("/boot/efi/EFI").glob("*/grub.cfg")):
        if "menuentry" in _text(path):
            return f"/boot/efi/EFI/{path.parent.name}/grub.cfg"
    return ""


def _has(paths: Paths, program: str) -> bool:
    return any(os.access(paths.under(f"{folder}/{program}"), os.X_OK) for folder in _SEARCHED)


def _one_line(text: str, wanted: Sequence[str]) -> str:
    made = boot_texts.with_arguments(text.strip(), wanted)
    return text if made == text.strip() else made + "\n"


def _text(place: Path) -> str:
    try:
        with place.open("rb") as file:
            return file.read(_LIMIT_BYTES).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _back_up(place: Path) -> None:
    backup = place.with_name(place.name + BACKUP)
    if not backup.exists():
        shutil.copy2(place, backup)
