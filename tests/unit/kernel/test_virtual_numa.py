"""`numa=off` for kernels that need it, in the files of the boot loader they have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.workers.kernel_tuner.virtual_numa import is_needed, turn_off

MENU = """\
default=0
timeout=5
# the kernel line below
title CentOS (2.6.32-754.el6.x86_64)
\troot (hd0,0)
\tkernel /vmlinuz-2.6.32-754.el6.x86_64 ro root=UUID=1234 quiet
\tinitrd /initramfs-2.6.32-754.el6.x86_64.img
"""


@pytest.mark.parametrize(
    ("release", "needed"),
    [
        ("2.6.32-754.el6.x86_64", True),
        ("2.6.36", True),
        ("2.6", True),
        ("2.6.37", False),
        ("2.6.37-rc1", False),
        ("2.6.38.8", False),
        ("3.0.0", False),
        ("6.1.0-18-cloud-amd64", False),
        ("10.2", False),
        ("", False),
        ("a.b.c", False),
        ("2.x.37", True),
    ],
)
def test_kernels_below_2_6_37_need_it(release: str, needed: bool) -> None:
    assert is_needed(release) is needed


def a_tree(root: Path, release: str) -> Paths:
    for name, text in (("proc/sys/kernel/osrelease", release + "\n"), ("boot/grub/menu.lst", MENU)):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    return Paths(root)


def no_tool(*argv: Any, **options: Any) -> Any:
    raise AssertionError(f"nothing is to be run, not {argv}")


def test_2_6_32_gets_exactly_one_argument_more(tmp_path: Path) -> None:
    paths = a_tree(tmp_path, "2.6.32-754.el6.x86_64")
    log = Log("test", descriptor=os.open(os.devnull, os.O_WRONLY))

    said = turn_off(paths, no_tool, log)
    once = (tmp_path / "boot/grub/menu.lst").read_text()
    turn_off(paths, no_tool, log)

    assert said == "numa=off"
    assert once == MENU.replace("root=UUID=1234 quiet", "root=UUID=1234 quiet numa=off")
    assert (tmp_path / "boot/grub/menu.lst").read_text() == once
    assert (tmp_path / "boot/grub/menu.lst.waagent-bak").read_text() == MENU


@pytest.mark.parametrize("release", ["2.6.37", "6.1.0-18-cloud-amd64"])
def test_others_keep_their_boot_line(tmp_path: Path, release: str) -> None:
    paths = a_tree(tmp_path, release)

    said = turn_off(paths, no_tool, Log("test", descriptor=2))

    assert said == ""
    assert (tmp_path / "boot/grub/menu.lst").read_text() == MENU
    assert not (tmp_path / "boot/grub/menu.lst.waagent-bak").exists()
