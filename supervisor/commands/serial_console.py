"""`waagent -serialconsole`: the kernel, the boot loader and a login on the serial line, which the
platform records and shows. Done twice it changes nothing more.
"""

from __future__ import annotations

import os
from functools import partial

from waagent.distro.boot import boot_loader, boot_texts
from waagent.distro.boot.boot_loader import BootError, Change, Run
from waagent.distro.distributions import family_of
from waagent.distro.paths import Paths

SPEED = 115200
SERIAL_COMMAND = f"serial --speed={SPEED} --unit=0 --word=8 --parity=no --stop=1"
FLATCAR_FILE = "/usr/share/oem/grub.cfg"
_UPSTART = """\
# getty on the serial line, by waagent -serialconsole
start on stopped rc RUNLEVEL=[2345]
stop on runlevel [!2345]
respawn
exec /sbin/getty -L {speed} {line} vt102
"""


def serial_line(machine: str) -> str:
    """The serial line of the platform's VMs of that kind of processor."""
    return "ttyAMA0" if machine in ("aarch64", "arm64") else "ttyS0"


def kernel_arguments(machine: str) -> tuple[str, ...]:
    """What the kernel is told; the last console becomes /dev/console."""
    line = serial_line(machine)
    early = (f"earlyprintk={line},{SPEED}",) if line == "ttyS0" else ()
    return ("console=tty1", f"console={line},{SPEED}n8", *early)


def configure(paths: Paths, run: Run, machine: str) -> list[str]:
    """Change what must be changed; one line for each file, and for what was made from them. Raises
    BootError when nothing here can be told, ToolError, OSError.
    """
    boots = _bsd(paths) if family_of(paths).name == "freebsd" else _linux(paths, machine)
    if not boots:
        raise BootError(
            "no boot loader is known here",
            "/etc/default/grub, /boot/grub/menu.lst, /boot/loader.conf",
            "add console=ttyS0 to the kernel's arguments by hand",
        )
    changed = boot_loader.apply(paths, [*boots, *_logins(paths, machine)])
    said = [
        f"{name}: changed, the file as it was is {name}{boot_loader.BACKUP}" for name in changed
    ]
    argument = f"console={serial_line(machine)}"
    is_grub2 = any(change.file.startswith(boot_loader.GRUB2_DEFAULTS) for change in boots)
    is_stale = is_grub2 and not boot_loader.made_says(paths, argument)
    if is_grub2 and (is_stale or any(name.startswith("/etc/default/grub") for name in changed)):
        made = boot_loader.regenerate_grub2(paths, run)
        if not boot_loader.made_says(paths, argument):
            raise BootError(
                f"GRUB's configuration was made anew, but has no {argument}",
                made or "grub.cfg",
                "see what the files in /etc/grub.d make of /etc/default/grub",
            )
        said.append(f"{made}: made anew")
    return said + _enable_getty(paths, machine)


def _linux(paths: Paths, machine: str) -> list[Change]:
    changes = boot_loader.kernel_argument_changes(paths, kernel_arguments(machine))
    if paths.under(boot_loader.GRUB2_DEFAULTS).is_file():
        changes.append(Change(boot_loader.GRUB2_DEFAULTS, _grub2_terminal))
    elif file := boot_loader.grub1_file(paths):
        changes.append(Change(file, partial(boot_texts.with_grub1_serial, speed=SPEED)))
    if paths.under(FLATCAR_FILE).parent.is_dir() and family_of(paths).name == "coreos":
        line = f'set linux_console="{" ".join(kernel_arguments(machine)[1:])}"'
        changes.append(Change(FLATCAR_FILE, partial(boot_texts.with_line, line=line), is_made=True))
    return changes


def _grub2_terminal(text: str) -> str:
    text = boot_texts.with_shell_value(text, "GRUB_TERMINAL", "serial console")
    return boot_texts.with_shell_value(text, "GRUB_SERIAL_COMMAND", SERIAL_COMMAND)


def _bsd(paths: Paths) -> list[Change]:
    def loader(text: str) -> str:
        for name, value in (
            ("boot_multicons", "YES"),
            ("boot_serial", "YES"),
            ("comconsole_speed", str(SPEED)),
            ("console", "comconsole,vidconsole"),
        ):
            text = boot_texts.with_shell_value(text, name, value)
        return text

    ttys = partial(boot_texts.with_bsd_serial_tty, line_name="ttyu0")
    return [Change("/boot/loader.conf", loader, is_made=True), Change("/etc/ttys", ttys)]


def _logins(paths: Paths, machine: str) -> list[Change]:
    """A login on the line, for inits that are not systemd."""
    line = serial_line(machine)
    if _has_systemd(paths):
        return []
    changes = []
    if paths.under("/etc/inittab").is_file():
        getty = partial(boot_texts.with_inittab_getty, line_name=line, speed=SPEED)
        changes.append(Change("/etc/inittab", getty))
    elif paths.under("/etc/init/rc.conf").is_file():
        text = _UPSTART.format(speed=SPEED, line=line)
        changes.append(Change(f"/etc/init/{line}.conf", lambda before: before or text, True))
    if paths.under("/etc/securetty").is_file():
        changes.append(Change("/etc/securetty", partial(boot_texts.with_line, line=line)))
    return changes


def _has_systemd(paths: Paths) -> bool:
    return any(paths.under(f"{folder}/systemd/systemd").exists() for folder in ("/lib", "/usr/lib"))


def _enable_getty(paths: Paths, machine: str) -> list[str]:
    """What `systemctl enable serial-getty@ttyS0` does, also for a system that does not run."""
    if not _has_systemd(paths):
        return []
    unit = next(
        (
            name
            for name in ("/usr/lib", "/lib")
            if paths.under(f"{name}/systemd/system/serial-getty@.service").is_file()
        ),
        None,
    )
    wants = "/etc/systemd/system/getty.target.wants"
    link = paths.under(f"{wants}/serial-getty@{serial_line(machine)}.service")
    if unit is None or link.is_symlink():
        return []
    link.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(f"{unit}/systemd/system/serial-getty@.service", link)
    return [f"serial-getty@{serial_line(machine)}: enabled"]
