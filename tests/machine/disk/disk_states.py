"""Disks as they may be found, and what must become of each."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

FORMATTED, MOUNTED, REUSED, LEFT = "formatted", "mounted", "reused", "left"
USER_FILE = "a customer's only copy"
MSR = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE"
WINDOWS_DATA = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"


class State(NamedTuple):
    """One row: how the disk is made, what is asked, what must come of it."""

    name: str
    make: Callable[[Any], None]
    outcome: str
    says: str
    """A part of the summary or the log."""
    options: dict[str, Any] = {}
    size_mib: int = 64
    read_only: bool = False


def sh(disk: Any, script: str) -> None:
    """A script in the machine; $D is the disk."""
    done = disk.vm.run(["sh", "-ec", f"D={disk.device}; {script}"])
    assert done.status == 0, f"{script}: {done.stdout[-300:]} {done.stderr[-600:]}"


def table(disk: Any, text: str) -> None:
    sh(disk, f"printf '{text}' | sfdisk -q --no-reread --no-tell-kernel $D")
    disk.partitions()


def made(*scripts: str, parts: str = "") -> Callable[[Any], None]:
    """The disk after these scripts; ``parts`` is a table for sfdisk that comes first."""

    def make(disk: Any) -> None:
        if parts:
            table(disk, parts)
        for script in scripts:
            sh(disk, script)

    return make


MBR_NTFS = "label: dos\\nstart=2048, type=7\\n"
GPT_NTFS = f"label: gpt\\nstart=2048, type={WINDOWS_DATA}\\n"
GPT_MSR = f"label: gpt\\nfirst-lba: 34\\nstart=34, size=32734, type={MSR}\\nstart=32768, type={WINDOWS_DATA}\\n"
MBR_LINUX = "label: dos\\nstart=2048, type=83\\n"
TWO_NTFS = "label: dos\\nstart=2048, size=65536, type=7\\ntype=83\\n"
EXTENDED = "label: dos\\nstart=2048, size=65536, type=5\\nstart=4096, size=8192, type=83\\n"
NTFS = "mkntfs -qQ -L 'Temporary Storage' ${D}p1 2>/dev/null"
NTFS_2 = NTFS.replace("p1", "p2")
WRITE = f"echo {USER_FILE!r} > /tmp/x"
MOUNT = (
    "mkdir -p /tmp/m; mount -t {0} ${{D}}{1} /tmp/m; "
    + f'echo "{USER_FILE}" > /tmp/m/mine; umount /tmp/m'
)
FUSE = "[ -e /dev/fuse ] || mknod /dev/fuse c 10 229; mkdir -p /tmp/m; ntfs-3g ${D}p1 /tmp/m; "
SETTLE = " umount /tmp/m; while grep -q /tmp/m /proc/mounts; do sleep 0.02; done; sleep 0.2"
PLATFORM = (
    "mkdir '/tmp/m/System Volume Information'; echo x > '/tmp/m/System Volume Information/a';"
    " echo warning > /tmp/m/DATALOSS_WARNING_README.txt;"
)


def byte_at(offset: int) -> Callable[[Any], None]:
    return made(f"printf '\\001' | dd of=$D bs=1 seek={offset} conv=notrunc 2>/dev/null")


def raid_member(disk: Any) -> None:
    """A superblock of md 1.2 as mdadm writes it: the kernel of the tests has no md."""
    block = bytearray(256 + 2)
    struct.pack_into("<IIII", block, 0, 0xA92B4EFC, 1, 0, 0)
    block[16:32] = b"0123456789abcdef"
    struct.pack_into("<Q", block, 144, 8)  # where it is
    struct.pack_into("<I", block, 220, 1)  # roles
    total = sum(struct.unpack_from("<64I", block)) + struct.unpack_from("<H", block, 256)[0]
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    disk.vm.run(["dd", f"of={disk.device}", "bs=4096", "seek=1"], stdin=bytes(block), check=True)


def cut(disk: Any) -> None:
    """A table for a disk that was twice as large."""
    table(disk, GPT_NTFS.replace("type=", "size=100000, type="))
    raw = disk.image.read_bytes()[: 1 << 20]
    disk.detach()
    with open(disk.image, "r+b") as file:
        file.truncate(0)
        file.truncate(32 << 20)
        file.write(raw)
    disk.attach()


def held(disk: Any) -> None:
    """Somebody has it open for himself alone."""
    script = "import os,sys,time; os.open(sys.argv[1], os.O_RDONLY|os.O_EXCL); print(1, flush=True); time.sleep(60)"
    holder = disk.vm.popen(["python3", "-c", script, disk.device], stdout=-1)
    holder.stdout.readline()
    disk.on_detach(holder)


STATES = (
    State("blank", made(), FORMATTED, "is blank"),
    State("an empty MBR", made(parts="label: dos\\n"), FORMATTED, "is blank"),
    State("an empty GPT", made(parts="label: gpt\\n"), FORMATTED, "is blank"),
    State("a partition with nothing in it", made(parts=MBR_LINUX), FORMATTED, "is blank"),
    State("MBR, fresh NTFS", made(NTFS, parts=MBR_NTFS), FORMATTED, "platform's own files"),
    State("GPT, fresh NTFS", made(NTFS, parts=GPT_NTFS), FORMATTED, "platform's own files"),
    State("GPT, reserved, NTFS", made(NTFS_2, parts=GPT_MSR), FORMATTED, "platform's own"),
    State("NTFS over all of it", made("mkntfs -qQF $D 2>/dev/null"), FORMATTED, "platform's own"),
    State(
        "NTFS with the platform's files",
        made(NTFS, FUSE + PLATFORM + SETTLE, parts=MBR_NTFS),
        FORMATTED,
        "platform's own files",
    ),
    State("xfs is wanted of a blank disk", made(), FORMATTED, "as xfs", {"Filesystem": "xfs"}, 400),
    State(
        "btrfs is wanted, with options",
        made(),
        FORMATTED,
        "as btrfs",
        {"Filesystem": "btrfs", "MountOptions": "compress=lzo,noatime"},
        400,
    ),
    State(
        "NTFS with a user's file",
        made(NTFS, WRITE + "; ntfscp -q ${D}p1 /tmp/x mine.txt", parts=MBR_NTFS),
        LEFT,
        "there is 'mine.txt' on it",
    ),
    State(
        "NTFS with a user's empty file",
        made(NTFS, ": > /tmp/x; ntfscp -q ${D}p1 /tmp/x empty", parts=GPT_NTFS),
        LEFT,
        "there is 'empty' on it",
    ),
    State(
        "NTFS with a user's folder",
        made(NTFS, FUSE + PLATFORM + "mkdir /tmp/m/db; " + SETTLE, parts=MBR_NTFS),
        LEFT,
        "there is 'db' on it",
    ),
    State(
        "a warning file that is none",
        made(
            NTFS,
            FUSE + "mkdir /tmp/m/a; echo 1 > /tmp/m/a/dataloss_warning_readme.txt; " + SETTLE,
            parts=MBR_NTFS,
        ),
        LEFT,
        "on it",
    ),
    State(
        "NTFS whose file table is broken",
        made(
            NTFS,
            "printf xy | dd of=${D}p1 bs=1 seek=23038 conv=notrunc 2>/dev/null",
            parts=MBR_NTFS,
        ),
        LEFT,
        "record 6 of its file table was half written",
    ),
    State("NTFS is wanted", made(NTFS, parts=MBR_NTFS), LEFT, "is ntfs", {"Filesystem": "ntfs"}),
    State("Format is n", made(NTFS, parts=MBR_NTFS), LEFT, "Format is n", {"Format": False}),
    State(
        "ext4 with data",
        made("mkfs.ext4 -qF ${D}p1", MOUNT.format("ext4", "p1"), parts=MBR_LINUX),
        MOUNTED,
        "mounted as it was",
    ),
    State(
        "xfs with data, ext4 is wanted",
        made("mkfs.xfs -qf ${D}p1", MOUNT.format("xfs", "p1"), parts=MBR_LINUX),
        MOUNTED,
        "mounted as it was",
        size_mib=400,
    ),
    State(
        "btrfs with data",
        made("mkfs.btrfs -qf ${D}p1", MOUNT.format("btrfs", "p1"), parts=MBR_LINUX),
        MOUNTED,
        "mounted as it was",
        size_mib=400,
    ),
    State(
        "ext3 of type 7, xfs is wanted",
        made("mkfs.ext3 -qF ${D}p1", MOUNT.format("ext3", "p1"), parts=MBR_NTFS),
        MOUNTED,
        "mounted as it was",
        {"Filesystem": "xfs"},
    ),
    State(
        "ext4 without partitions",
        made("mkfs.ext4 -qF $D", MOUNT.format("ext4", "")),
        MOUNTED,
        "mounted as it was",
    ),
    State(
        "two partitions with ext4",
        made(
            "mkfs.ext4 -qF ${D}p1; mkfs.ext4 -qF ${D}p2", MOUNT.format("ext4", "p1"), parts=TWO_NTFS
        ),
        MOUNTED,
        "mounted as it was",
    ),
    State(
        "NTFS, and a partition of somebody",
        made(NTFS, "mkfs.ext4 -qF ${D}p2", parts=TWO_NTFS),
        LEFT,
        "2 partitions",
    ),
    State(
        "ext4 that does not mount",
        made(
            "mkfs.ext4 -qF ${D}p1",
            "debugfs -w -R 'ssv feature_incompat 0x1000042' ${D}p1 2>/dev/null",
            parts=MBR_LINUX,
        ),
        LEFT,
        "mount ended with status",
    ),
    State("vfat", made("mkfs.vfat ${D}p1", parts=MBR_LINUX), LEFT, "it holds vfat"),
    State("an LVM member", made("pvcreate -ff -y $D"), LEFT, "LVM2_member"),
    State("a RAID member", raid_member, LEFT, "linux_raid_member"),
    State(
        "LUKS in a partition",
        made(
            "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ${D}p1"
            " /etc/hostname",
            parts=MBR_LINUX,
        ),
        LEFT,
        "crypto_LUKS",
    ),
    State("swap", made("mkswap -q $D"), LEFT, "it holds swap"),
    State("swap in use", made("mkswap -q $D; swapon $D"), LEFT, "in use as swap"),
    State("an extended partition", made(parts=EXTENDED), LEFT, "is damaged: partition 1 is of"),
    State("a table for a larger disk", cut, LEFT, "table is damaged"),
    State(
        "GPT, first header lost",
        made(
            NTFS,
            "dd if=/dev/zero of=$D bs=512 seek=1 count=1 conv=notrunc 2>/dev/null",
            parts=GPT_NTFS,
        ),
        LEFT,
        "table is damaged",
    ),
    State("one byte in the middle", byte_at(33 << 20), LEFT, f"byte {33 << 20} of"),
    State("one byte at the end", byte_at((64 << 20) - 1), LEFT, f"byte {(64 << 20) - 1} of"),
    State(
        "one byte in a partition of no file system",
        lambda disk: (table(disk, MBR_LINUX), byte_at(40 << 20)(disk), None)[2],
        LEFT,
        f"byte {40 << 20} of",
    ),
    State("3 TB, blank", made(), FORMATTED, "as xfs", {"Filesystem": "xfs"}, 3 << 20),
    State(
        "3 TB, reserved, NTFS",
        made(NTFS_2, parts=GPT_MSR),
        FORMATTED,
        "as xfs",
        {"Filesystem": "xfs"},
        3 << 20,
    ),
    State(
        "mounted elsewhere",
        made("mkfs.ext4 -qF ${D}p1; mkdir -p /mnt/cloud; mount ${D}p1 /mnt/cloud", parts=MBR_LINUX),
        REUSED,
        "/mnt/cloud",
    ),
    State(
        "the system's",
        made("mkfs.ext4 -qF ${D}p1; mount -o ro ${D}p1 /boot", parts=MBR_LINUX),
        LEFT,
        "the system itself is on it",
    ),
    State("in somebody's hands", held, LEFT, "somebody uses the resource disk"),
    State("blank, read-only", made(), LEFT, "it is read-only", read_only=True),
    State(
        "a file system nobody can make", made(), LEFT, "mkfs.zfs is missing", {"Filesystem": "zfs"}
    ),
    State(
        "the mount point is taken",
        made(
            "mkfs.ext4 -qF ${D}p1; mkdir -p /mnt/taken; mount -t tmpfs none /mnt/taken",
            parts=MBR_LINUX,
        ),
        LEFT,
        "where the resource disk belongs",
        {"MountPoint": "/mnt/taken"},
    ),
)
