"""udev's rules that tie interface names to addresses: masked, and restored byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

from waagent.distro.interface_names import GENERATOR, RULES, release, restore
from waagent.distro.paths import Paths

TEXT = b'SUBSYSTEM=="net", ATTR{address}=="00:0d:3a:00:00:01", NAME="eth0"\n\xff\n'


def a_tree(root: Path) -> Path:
    folder = root / "etc/udev/rules.d"
    folder.mkdir(parents=True)
    (root / "lib/udev/rules.d").mkdir(parents=True)
    return folder


def test_rules_are_moved_and_come_back_byte_for_byte(tmp_path: Path) -> None:
    folder, paths = a_tree(tmp_path), Paths(tmp_path)
    (folder / RULES).write_bytes(TEXT)
    (folder / RULES).chmod(0o640)
    (tmp_path / "lib/udev/rules.d" / GENERATOR).write_bytes(b"packaged\n")

    first, again = release(paths), release(paths)
    masked = {name: os.readlink(folder / name) for name in (RULES, GENERATOR)}
    restored = restore(paths)

    assert len(first) == 2 and again == []
    assert masked == {RULES: "/dev/null", GENERATOR: "/dev/null"}
    assert len(restored) == 2 and restore(paths) == []
    assert (folder / RULES).read_bytes() == TEXT
    assert (folder / RULES).stat().st_mode & 0o777 == 0o640
    assert not os.path.lexists(folder / GENERATOR)
    assert (tmp_path / "lib/udev/rules.d" / GENERATOR).read_bytes() == b"packaged\n"


def test_a_rule_that_appears_again_is_moved_again(tmp_path: Path) -> None:
    folder, paths = a_tree(tmp_path), Paths(tmp_path)
    (folder / RULES).write_bytes(b"old\n")
    release(paths)
    (folder / RULES).unlink()
    (folder / RULES).write_bytes(TEXT)

    release(paths)
    restore(paths)

    assert (folder / RULES).read_bytes() == TEXT


def test_a_mask_of_somebody_else_and_a_system_without_rules_stay(tmp_path: Path) -> None:
    folder, paths = a_tree(tmp_path), Paths(tmp_path)
    (folder / RULES).symlink_to("/dev/null")

    assert release(paths) == [] and restore(paths) == []

    assert os.listdir(folder) == [RULES]
