"""The guest's disk: a minimal Debian with systemd, made from packages, once, below `.cache/guest`.

Nothing of the host is visible in it and nothing on the host changes: mmdebstrap works in a mount
namespace, `mkfs.ext4 -d` fills the file system without a loop device, and QEMU is given the kernel
itself, so that no boot loader is needed. The folder is named by a hash of this recipe alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from waagent.lab.fabric.values import LabError
from waagent.lab.tools import cache, run_tool

SUITE = "bookworm"
PACKAGES = (
    "systemd-sysv",
    "libpam-systemd",
    "dbus",
    "udev",
    "kmod",
    "procps",
    "initramfs-tools",
    "linux-image-cloud-amd64",
    "ifupdown",
    "isc-dhcp-client",
    "iproute2",
    "openssh-server",
    "openssl",
    "sudo",
    "python3",
    "ca-certificates",
    "netbase",
    "logrotate",
    "zstd",
    "cpio",
)
TOOLS = {"mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs", "ssh-keygen": "openssh-client"}
DISK_BYTES = 2 << 30
BUILD_LIMIT_S = 900.0
KERNEL_LINE = "root=LABEL=guestroot ro net.ifnames=0 console=ttyS0,115200 mitigations=off"
_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "dpkg-db-backup.timer",
    "getty@tty1.service",
    "systemd-timesyncd.service",
    "systemd-pstore.service",
)
"""Slow in an emulated machine, and of no interest to a guest agent."""
_FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 guest\n",
    "etc/fstab": "LABEL=guestroot / ext4 defaults,noatime 0 0\n",
    "etc/machine-id": "",
    "etc/network/interfaces": (
        "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n"
    ),
    "etc/ssh/sshd_config.d/10-guest.conf": (
        "UseDNS no\nPermitRootLogin prohibit-password\nGSSAPIAuthentication no\n"
    ),
    "etc/systemd/system.conf.d/slow.conf": (
        "[Manager]\nDefaultTimeoutStartSec=240s\nDefaultDeviceTimeoutSec=240s\n"
    ),
}
_INITRAMFS_SETTINGS = "MODULES=list\\nCOMPRESS=zstd\\nFSTYPE=ext4\\n"
_INITRAMFS_MODULES = "virtio_pci\\nvirtio_scsi\\nsd_mod\\next4\\n"
_HOOK = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d"'
    f' && printf "{_INITRAMFS_SETTINGS}" > "$1/etc/initramfs-tools/conf.d/guest"'
    f' && printf "{_INITRAMFS_MODULES}" > "$1/etc/initramfs-tools/modules"'
)


class Image:
    """A folder with `disk.raw`, `vmlinuz`, `initrd.img` and `key` (root's, for the tests)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk, self.key = folder / "disk.raw", folder / "key"
        self.kernel, self.initrd = folder / "vmlinuz", folder / "initrd.img"


def missing_tools() -> list[str]:
    """Debian packages of the programs that this machine lacks for a guest."""
    tools = {**TOOLS, "qemu-system-x86_64": "qemu-system-x86", "dnsmasq": "dnsmasq-base"}
    return sorted({package for tool, package in tools.items() if shutil.which(tool) is None})


def ensure_image(say: Callable[[str], None]) -> Image:
    """The image of this recipe, built when it is not there (two minutes). Raises LabError."""
    store = cache() / "guest"
    store.mkdir(exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    image = Image(store / f"{SUITE}-{recipe}")
    with open(store / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.disk.exists():
            say(f"making a Debian {SUITE} disk from packages in {image.folder.name}")
            with tempfile.TemporaryDirectory(dir=store, prefix="build-") as scratch:
                _build(Image(Path(scratch)), image)
            for old in store.glob(f"{SUITE}-*"):
                if old != image.folder:
                    shutil.rmtree(old)
    return image


def _build(made: Image, image: Image) -> None:
    root = made.folder / "root"
    sources = made.folder / "sources.list"
    sources.write_text(_apt_sources(), encoding="utf-8")
    run_tool(
        [
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=directory"),
            "--components=main",
            '--aptopt=Apt::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            f"--essential-hook={_HOOK}",
            f"--include={','.join(PACKAGES)}",
            *(SUITE, root, sources),
        ],
        deadline_s=BUILD_LIMIT_S,
    )
    run_tool(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guest", "-f", made.key])
    _configure(root, made.key.with_suffix(".pub").read_bytes())
    version = sorted(path.name for path in (root / "lib/modules").iterdir())[-1]
    shutil.copyfile(root / f"boot/vmlinuz-{version}", made.kernel)
    _unpack_initrd(root, version, made.initrd)
    shutil.rmtree(root / "dev")
    (root / "dev").mkdir(0o755)
    with open(made.disk, "wb") as disk:
        disk.truncate(DISK_BYTES)
    run_tool(
        ["mkfs.ext4", "-q", "-F", "-L", "guestroot", "-d", root, made.disk],
        deadline_s=BUILD_LIMIT_S,
    )
    shutil.rmtree(root)
    shutil.rmtree(image.folder, ignore_errors=True)
    os.rename(made.folder, image.folder)
    made.folder.mkdir()  # what the caller's temporary folder removes


def _apt_sources() -> str:
    """This machine's own archive, with the suite exchanged. Raises LabError where there is none."""
    wanted = "$(REPO_URI) $(SUITE) $(ORIGIN)"
    said = run_tool(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"])
    lines = set()
    for line in said.decode().splitlines():
        address, suite, origin = (*line.split(), "", "", "")[:3]
        if origin == "Debian" and suite.partition("-")[2] in ("", "updates", "security"):
            pocket = suite.partition("-")[2]
            lines.add(f"deb {address} {SUITE}{'-' + pocket if pocket else ''} main\n")
    if not lines:
        raise LabError("no Debian package source is known", "apt-get", "run apt-get update")
    return "".join(sorted(lines))


def _configure(root: Path, public_key: bytes) -> None:
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    keys = root / "root/.ssh"
    keys.mkdir(mode=0o700, exist_ok=True)
    (keys / "authorized_keys").write_bytes(public_key)
    run_tool(["chroot", root, "systemctl", "mask", "-q", *_MASKED])
    run_tool(["chroot", root, "passwd", "-q", "-l", "root"])
    for leftover in (*(root / "var/lib/apt/lists").iterdir(), root / "etc/apt/sources.list"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _unpack_initrd(root: Path, version: str, target: Path) -> None:
    """Uncompressed: an emulated processor takes longer to inflate than to read."""
    run_tool(["chroot", root, "unmkinitramfs", f"/boot/initrd.img-{version}", "/tmp/initrd"])
    folder = root / "tmp/initrd"
    inner = "tmp/initrd/main" if (folder / "main").is_dir() else "tmp/initrd"
    pack = f"cd /{inner} && find . | cpio -o -H newc --quiet -R 0:0"
    target.write_bytes(run_tool(["chroot", root, "sh", "-c", pack], deadline_s=120.0))
    shutil.rmtree(folder)
