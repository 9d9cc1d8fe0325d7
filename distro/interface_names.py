"""Keeps udev from tying the name `eth0` to a hardware address: a VM that is moved gets another one,
and its interface would become `eth1`, without its configuration.

The rules that do so are masked by links to /dev/null below /etc/udev/rules.d; what stood there is
kept in `<lib>/udev-rules` and comes back byte for byte. A file below /lib belongs to a package and
stays where it is: the link of the same name wins over it.
"""

from __future__ import annotations

import os
from pathlib import Path

from waagent.distro.files import make_folder, write_atomic
from waagent.distro.paths import Paths

FOLDER = "/etc/udev/rules.d"
PACKAGED = "/lib/udev/rules.d"
GENERATOR, RULES = "75-persistent-net-generator.rules", "70-persistent-net.rules"
KEPT = "udev-rules"
_NULL = "/dev/null"
_OURS = ".masked"  # a mask of somebody else's has no such file and stays


def release(paths: Paths) -> list[str]:
    """Mask the rules that are there; the files that were. Raises OSError."""
    changed = []
    for name in (GENERATOR, RULES):
        place = paths.under(f"{FOLDER}/{name}")
        if _is_mask(place):
            continue
        is_own = place.exists() or place.is_symlink()
        if not is_own and not paths.under(f"{PACKAGED}/{name}").exists():
            continue
        kept = _kept(paths)
        make_folder(paths.library)
        make_folder(kept)
        write_atomic(kept / (name + _OURS), b"")
        if is_own:
            _copy(place, kept / name)
            place.unlink()
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(_NULL, place)
        changed.append(f"{FOLDER}/{name}")
    return changed


def restore(paths: Paths) -> list[str]:
    """Take our masks away and put back what stood there; the files. Raises OSError."""
    changed = []
    for name in (GENERATOR, RULES):
        place, kept = paths.under(f"{FOLDER}/{name}"), _kept(paths) / name
        ours = kept.with_name(name + _OURS)
        if not ours.exists():
            continue
        if _is_mask(place):
            place.unlink()
        if kept.exists() or kept.is_symlink():
            _copy(kept, place)
            kept.unlink()
        ours.unlink()
        changed.append(f"{FOLDER}/{name}")
    return changed


def _kept(paths: Paths) -> Path:
    return paths.library / KEPT


def _is_mask(place: Path) -> bool:
    return place.is_symlink() and os.readlink(place) == _NULL


def _copy(source: Path, target: Path) -> None:
    """Content, mode and owner (`shutil` would be 0.3 MiB in a process that stays)."""
    facts = source.stat()
    owner = (facts.st_uid, facts.st_gid)
    write_atomic(target, source.read_bytes(), mode=facts.st_mode & 0o7777, owner=owner)
