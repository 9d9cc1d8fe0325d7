"""`waagent -serialconsole` on recorded trees: the exact files that result, and none changed twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from waagent.distro.boot.boot_loader import BootError
from waagent.distro.boot.boot_texts import with_arguments
from waagent.distro.paths import Paths
from waagent.supervisor.commands.serial_console import configure

SERIAL = "console=ttyS0,115200n8"
ALL = f"console=tty1 {SERIAL} earlyprintk=ttyS0,115200"


def a_tree(root: Path, files: dict[str, str]) -> Paths:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Paths(root)


def texts(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.endswith(".waagent-bak")
    }


def not_run(*argv: Any, **options: Any) -> Any:
    raise AssertionError(f"nothing is to be run, not {argv}")


def configured_twice(root: Path, files: dict[str, str], run: Any = not_run) -> dict[str, str]:
    """The files after two runs; the second must change nothing and say so."""
    paths = a_tree(root, files)
    said = configure(paths, run, "x86_64")
    once = texts(root)
    assert said
    assert configure(paths, run, "x86_64") == []
    assert texts(root) == once
    for name, text in files.items():
        if once[name] != text and not name.endswith("grub.cfg"):  # that one is made by a tool
            assert (root / f"{name}.waagent-bak").read_text() == text
    return once


def test_grub_1_and_inittab(tmp_path: Path) -> None:
    menu = (
        "# kernel is named here\ndefault=0\ntitle Linux\n\troot (hd0,0)\n"
        "\tkernel /vmlinuz ro root=/dev/sda1 rhgb\n\tinitrd /initrd\n"
    )
    inittab = "id:3:initdefault:\n1:2345:respawn:/sbin/mingetty tty1\n#S0:off:ttyS0\n"

    got = configured_twice(
        tmp_path,
        {"boot/grub/menu.lst": menu, "etc/inittab": inittab, "etc/securetty": "console\ntty1\n"},
    )

    assert got["boot/grub/menu.lst"] == (
        "# kernel is named here\ndefault=0\n"
        "serial --unit=0 --speed=115200\nterminal --timeout=5 serial console\n"
        f"title Linux\n\troot (hd0,0)\n\tkernel /vmlinuz ro root=/dev/sda1 rhgb {ALL}\n"
        "\tinitrd /initrd\n"
    )
    assert got["etc/inittab"] == inittab + "S0:12345:respawn:/sbin/agetty -L 115200 ttyS0 vt102\n"
    assert got["etc/securetty"] == "console\ntty1\nttyS0\n"


def test_boot_loader_entries(tmp_path: Path) -> None:
    entry = "title Linux\nversion 5.14\nlinux /vmlinuz\noptions root=/dev/sda1 ro $tuned_params\n"

    got = configured_twice(
        tmp_path, {"boot/loader/entries/a.conf": entry, "etc/kernel/cmdline": "root=/dev/sda1 ro\n"}
    )

    assert got == {
        "boot/loader/entries/a.conf": entry.replace("$tuned_params", f"$tuned_params {ALL}"),
        "etc/kernel/cmdline": f"root=/dev/sda1 ro {ALL}\n",
    }


def test_freebsd(tmp_path: Path) -> None:
    ttys = 'ttyv0\t"/usr/libexec/getty Pc"\t\txterm\ton  secure\n'
    serial = 'ttyu0\t"/usr/libexec/getty 3wire"\tvt100\tonifconsole secure\n'

    got = configured_twice(
        tmp_path,
        {
            "etc/os-release": "ID=freebsd\nVERSION_ID=14.1\n",
            "boot/loader.conf": '# mine\nautoboot_delay="3"\nconsole="vidconsole"\n',
            "etc/ttys": ttys + serial,
        },
    )

    assert got["boot/loader.conf"] == (
        '# mine\nautoboot_delay="3"\nconsole="comconsole,vidconsole"\nboot_multicons="YES"\n'
        'boot_serial="YES"\ncomconsole_speed="115200"\n'
    )
    assert got["etc/ttys"] == ttys + serial.replace("onifconsole", "on")


def test_a_drop_in_that_has_the_last_word_is_the_one_that_is_edited(tmp_path: Path) -> None:
    made = tmp_path / "boot/grub/grub.cfg"

    def run(argv: list[str], **options: Any) -> None:
        assert argv == ["chroot", str(tmp_path), "update-grub"]
        made.write_text((tmp_path / "etc/default/grub.d/50-cloud.cfg").read_text())

    files = {
        "etc/default/grub": "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=''\nGRUB_TERMINAL=console\n",
        "etc/default/grub.d/50-cloud.cfg": "GRUB_CMDLINE_LINUX='quiet console=ttyS0'\n",
        "boot/grub/grub.cfg": "menuentry\n",
        "usr/sbin/update-grub": "",
    }
    a_tree(tmp_path, files)
    (tmp_path / "usr/sbin/update-grub").chmod(0o755)

    got = configured_twice(tmp_path, files, run)

    assert got["etc/default/grub.d/50-cloud.cfg"] == (
        'GRUB_CMDLINE_LINUX="quiet console=tty1 console=ttyS0 earlyprintk=ttyS0,115200"\n'
    )
    assert got["etc/default/grub"] == (
        "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=''\nGRUB_TERMINAL=\"serial console\"\n"
        'GRUB_SERIAL_COMMAND="serial --speed=115200 --unit=0 --word=8 --parity=no --stop=1"\n'
    )


def test_without_a_known_boot_loader_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="no boot loader is known here.*add console=ttyS0"):
        configure(Paths(tmp_path), not_run, "x86_64")


@pytest.mark.parametrize(
    ("present", "wanted"),
    [
        ("", ALL),
        ("quiet", f"quiet {ALL}"),
        (ALL, ALL),
        ("console=ttyS0 ro", "console=tty1 console=ttyS0 ro earlyprintk=ttyS0,115200"),
        ("console=tty1", f"console=tty1 {SERIAL} earlyprintk=ttyS0,115200"),
    ],
)
def test_arguments_are_added_once_and_the_serial_line_stays_last(present: str, wanted: str) -> None:
    assert with_arguments(present, ALL.split()) == wanted
