"""The end of a guest's life as a VM: its name goes to the DNS, and it becomes an image.

Runs after `test_systemd.py`, on the same guest: afterwards nothing of it is left.
"""

from __future__ import annotations

from pathlib import Path

from waagent.lab.guest.guest import Guest

PACKER = "/usr/sbin/waagent -force -deprovision+user && export HISTSIZE=0 && sync"
# new host keys at the end, since the tests come back by SSH
LAST_WORDS = f"""
{PACKER} && echo done
waagent -deprovision --verify
systemctl is-active waagent
id azureuser
cat /etc/machine-id /etc/hostname
ls -A /var/lib/waagent
ssh-keygen -A > /dev/null
"""


def test_sudo_finds_the_name_and_a_changed_one_is_published(guest: Guest, key: Path) -> None:
    guest.wait_for(lambda: guest.run("test -e /var/lib/waagent/provisioned").status == 0, "marker")
    done = guest.ssh(key, "azureuser", "sudo -n true")
    assert (done.status, done.stderr) == (0, "")
    before = guest.must("ip -4 addr show; ip -4 route; cat /etc/resolv.conf")

    guest.must("hostnamectl set-hostname other-name")
    log = "/var/log/waagent.log"
    guest.wait_for(
        lambda: "host name other-name is" in guest.run(f"cat {log}").stdout, "publication", 300
    )

    print(guest.must(f"grep 'host name other-name' {log}"))
    left = [line for line in before.splitlines() if "valid_lft" not in line]
    now = guest.must("ip -4 addr show; ip -4 route; cat /etc/resolv.conf").splitlines()
    assert [line for line in now if "valid_lft" not in line] == left


def test_packer_s_last_line_leaves_an_image(guest: Guest, key: Path) -> None:
    session = guest.ssh(
        key, "azureuser", f"sudo sh -c '{LAST_WORDS}'; echo lives", deadline_s=300.0
    )

    said = session.stdout.splitlines()
    print(session.stdout, session.stderr)
    assert said[0] == "done" and said[-1] == "lives"
    # the key by which the tests come in as root is the image's own
    assert said[1:-2] == ["/root/.ssh/authorized_keys: keys that log in as root", "inactive"]
    assert said[-2] == "localhost.localdomain"
    assert "no such user" in session.stderr
    assert guest.run("systemctl is-active waagent").stdout == "inactive\n"


def test_the_next_vm_is_provisioned_anew(guest: Guest, key: Path) -> None:
    before = len(guest.fabric.health)
    guest.reboot()

    guest.wait_for(
        lambda: any(item["state"] == "Ready" for item in guest.fabric.health[before:]), "Ready", 400
    )

    guest.await_ssh()  # sshd has new host keys about when Ready is said, and listens anew
    assert guest.must("hostname").strip() == "tern-12"
    assert guest.ssh(key, "azureuser", "sudo -n id -u").stdout == "0\n"
