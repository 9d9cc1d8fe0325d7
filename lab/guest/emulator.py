"""The QEMU command line of a guest that looks like an Azure VM. Pure."""

from __future__ import annotations

from pathlib import Path

from waagent.lab.guest.image import KERNEL_LINE, Image
from waagent.lab.machine.addresses import MAC

MEMORY_MIB = 1024
VM_ID = "1d8c0c2e-5a2b-4a4e-9d0e-7f0a1b2c3d4e"
_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"
_DISK = "vendor=Msft,product=VirtualDisk"


def command(image: Image, folder: Path, dvd: Path | None) -> list[str]:
    """The argv: OS disk on SCSI LUN 0, resource disk on LUN 1, DVD on IDE, console in a file.

    ``folder`` holds `disk.raw` and `resource.raw`, and gets `console.log`. `tap0` is the cable.
    """
    smbios = "manufacturer=Microsoft Corporation,product=Virtual Machine"
    argv = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-machine", "pc,graphics=off,usb=off", "-accel", "tcg,thread=multi,tb-size=512"]
    # the quickest of those tried under emulation: features that it must work for cost time
    argv += ["-cpu", "Nehalem,+rdrand,+invtsc", "-smp", "2", "-m", str(MEMORY_MIB)]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", KERNEL_LINE]
    argv += ["-serial", f"file:{folder}/console.log", "-device", "virtio-rng-pci"]
    argv += ["-smbios", f"type=1,{smbios},version=7.0,uuid={VM_ID}"]
    argv += ["-smbios", f"type=3,manufacturer=Microsoft Corporation,asset={_ASSET_TAG}"]
    argv += ["-device", "virtio-scsi-pci,id=scsi0"]
    for lun, name in enumerate(("disk", "resource")):
        place = f"bus=scsi0.0,channel=0,scsi-id=0,lun={lun}"
        argv += ["-drive", f"if=none,id={name},file={folder}/{name}.raw,format=raw,cache=unsafe"]
        argv += ["-device", f"scsi-hd,{place},drive={name},{_DISK}"]
    disc = f"file={dvd},format=raw," if dvd is not None else ""
    argv += ["-drive", f"if=none,id=cd0,{disc}media=cdrom,readonly=on"]
    argv += ["-device", "ide-cd,bus=ide.1,drive=cd0"]
    argv += ["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"]
    argv += ["-device", f"virtio-net-pci,netdev=n0,mac={MAC},romfile="]
    return argv
