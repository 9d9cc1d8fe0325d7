"""`waagent -serialconsole` on a Debian root of its own disk, with Debian's GRUB."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from waagent.lab.machine import Machine, loop

MAKE = """
set -e
mknod /dev/$1 b 7 $2
mkfs.ext4 -qF /dev/$1
mkdir -p /mnt/root
mount /dev/$1 /mnt/root
cd /
tar --one-file-system --exclude=./usr/lib/waagent --exclude=./usr/lib/modules --exclude=./mnt \
    -cf - ./usr ./etc ./bin ./sbin ./lib ./lib64 ./boot ./var/lib/dpkg | tar -C /mnt/root -xf -
mkdir -p /mnt/root/proc /mnt/root/sys /mnt/root/dev /mnt/root/run /mnt/root/tmp
mkdir -p /mnt/root/boot/grub /mnt/root/var/lib
for name in proc sys dev; do mount --rbind /$name /mnt/root/$name; done
printf 'GRUB_DEFAULT=0\\nGRUB_TIMEOUT=5\\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\\nGRUB_CMDLINE_LINUX=""\\n' \
    > /mnt/root/etc/default/grub
ls /mnt/root/boot/vmlinuz-* > /dev/null
"""


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with a copy of its Debian on a disk at /mnt/root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces, overlay, loop device")
    folder = tmp_path_factory.mktemp("grub")
    image = folder / "root.img"
    image.touch()
    os.truncate(image, 2 << 30)
    bound = loop.bind(image, folder, read_only=False)
    with Machine(folder, agent=False, fabric=False, dhcp=False, sshd=False) as machine:
        name = "sdz"  # grub-mkconfig leaves out what is called loop
        machine.run(["sh", "-c", MAKE, "sh", name, str(bound.number)], check=True, timeout_s=180)
        yield machine
        machine.run(["umount", "--recursive", "/mnt/root"])
    os.close(bound.descriptor)


def files(vm: Machine) -> str:
    """Digests of all that the command may touch."""
    script = "cd /mnt/root; find etc boot/grub -type f | sort | xargs md5sum"
    return vm.run(["sh", "-c", script], check=True).stdout


def test_grub_mkconfig_puts_the_console_into_its_output_and_twice_is_once(vm: Machine) -> None:
    first = vm.run(["waagent", "-root:/mnt/root", "-serialconsole"], timeout_s=120)
    made = vm.read("/mnt/root/boot/grub/grub.cfg")
    before = files(vm)
    second = vm.run(["waagent", "-root:/mnt/root", "-serialconsole"], timeout_s=120)

    assert first.status == 0, first.stderr
    assert "/etc/default/grub: changed, the file as it was is" in first.stdout
    assert "/boot/grub/grub.cfg: made anew" in first.stdout
    kernels = [line.strip() for line in made.splitlines() if line.strip().startswith("linux")]
    assert kernels
    for line in kernels:
        assert line.count("console=tty1 console=ttyS0,115200n8 earlyprintk=ttyS0,115200") == 1
    assert "serial --speed=115200 --unit=0" in made
    assert "terminal_input serial console" in made and "terminal_output serial console" in made
    assert "serial-getty@ttyS0: enabled" in first.stdout
    assert second.status == 0
    assert second.stdout == "nothing to change, the serial console is configured\n"
    assert files(vm) == before


def test_where_grub_cannot_make_it_the_exit_status_says_so(vm: Machine) -> None:
    vm.run(["sh", "-c", "mkdir -p /tmp/t/etc/default; echo A=1 > /tmp/t/etc/default/grub"])

    done = vm.run(["waagent", "-root:/tmp/t", "-serialconsole"])

    assert done.status == 1
    assert "cannot be made anew" in done.stderr and len(done.stderr.splitlines()) == 1
