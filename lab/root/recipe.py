"""What a root is made of. Pure: the same recipe gives the same name on every host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

MAKER = 1
"""Counts up when `debian.py` makes something else of the same recipe."""
_AGENT = ("python3", "python3-venv", "python3-distro", "openssl", "ca-certificates", "sudo")
_SYSTEM = ("udev", "kmod", "procps", "psmisc", "dbus", "logrotate", "netbase", "zstd", "cpio")
_NETWORK = (
    *("ifupdown", "isc-dhcp-client", "busybox", "udhcpc", "iproute2", "iputils-ping"),
    *("iptables", "nftables", "dnsmasq-base", "openssh-server", "openssh-client"),
)
_DISKS = (
    *("eject", "fdisk", "parted", "e2fsprogs", "xfsprogs", "btrfs-progs", "dosfstools", "ntfs-3g"),
    *("lvm2", "mdadm", "cryptsetup-bin", "dmidecode"),
)
_KERNEL = ("initramfs-tools", "linux-image-cloud-amd64", "grub-pc-bin", "grub2-common")
_INITS = {
    "systemd": ("systemd-sysv", "libpam-systemd"),
    "sysvinit": ("sysvinit-core", "insserv", "startpar", "initscripts", "orphan-sysvinit-scripts"),
    "openrc": ("sysvinit-core", "openrc", "initscripts", "orphan-sysvinit-scripts"),
}
_NO_SYSTEMD = ("rsyslog",)
"""What those without a journal log with."""
EMULATOR = ("qemu-system-x86",)
"""Laid over a root to run a guest; nothing of it is in one."""
FILES = {
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/resolv.conf": "",
    "etc/machine-id": "",
}
"""Nothing of the machine on which a root was made."""
_INITRAMFS_SETTINGS = "MODULES=list\\nCOMPRESS=zstd\\nFSTYPE=ext4\\n"
_INITRAMFS_MODULES = "virtio_pci\\nvirtio_scsi\\nsd_mod\\next4\\n"
_HOOK = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d"'
    f' && printf "{_INITRAMFS_SETTINGS}" > "$1/etc/initramfs-tools/conf.d/guest"'
    f' && printf "{_INITRAMFS_MODULES}" > "$1/etc/initramfs-tools/modules"'
)


@dataclass(frozen=True)
class Recipe:
    """One Debian: its suite and its init ("systemd", "sysvinit", "openrc")."""

    suite: str = "bookworm"
    init: str = "systemd"

    @property
    def packages(self) -> tuple[str, ...]:
        """What is installed besides Debian's essential packages."""
        logger = () if self.init == "systemd" else _NO_SYSTEMD
        return (
            *(*_AGENT, *_SYSTEM, *_NETWORK, *_DISKS, *_KERNEL),
            *(*_INITS[self.init], *logger),
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The command that makes it, without target and sources (mmdebstrap(1))."""
        return (
            *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=directory"),
            "--components=main",
            '--aptopt=Apt::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=force-unsafe-io",
            f"--essential-hook={_HOOK}",
            f"--include={','.join(self.packages)}",
            self.suite,
        )

    @property
    def name(self) -> str:
        """Its folder's name: suite, init, and a digest of all that decides what is in it."""
        decides = repr((MAKER, self.words, sorted(FILES.items())))
        digest = hashlib.sha256(decides.encode()).hexdigest()[:16]
        return f"{self.suite}-{self.init}-{digest}"
