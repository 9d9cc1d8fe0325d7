"""In an emulated Debian 12 with Debian's own agent, provisioned and with three extensions: ours is
installed, Debian's again, and ours again (`make guest-take-over`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.guest import image as images
from waagent.lab.guest.guest import Guest
from waagent.lab.handlers.packages import handler_zip
from waagent.lab.machine.layers import cache, checkout
from waagent.lab.ovf import Order, ovf_env

PREDECESSOR = ("python3-distro", "python3-pkg-resources", "waagent")
PACKAGES = Path(os.environ.get("PACKAGES", checkout() / "dist"))
ONCE = (
    '[ "$(cat mrseq 2>/dev/null)" != "$ConfigSequenceNumber" ] || exit 0\n'
    'echo "$ConfigSequenceNumber" >> /var/tmp/ran.$(basename "$PWD")\n'
)
DONE = 'echo "$ConfigSequenceNumber" > mrseq\nreport success 0 finished\n'
ENABLES = {
    "Contoso.Plain": ONCE + DONE,
    "Contoso.Child": ONCE
    + "setsid sleep 5000 </dev/null >/dev/null 2>&1 &\necho $! > /var/tmp/child\n"
    + DONE,
    "Contoso.Slow": ONCE + "while [ ! -e /var/tmp/go ]; do sleep 0.5; done\n" + DONE,
}
FACTS = (
    "id azureuser; hostname; cat /etc/ssh/ssh_host_*_key.pub /home/azureuser/.ssh/authorized_keys;"
    " swapon --noheadings --show=NAME,SIZE"
)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """Debian's agent, installed and running; three extensions, the last one in its enable."""
    if os.geteuid() != 0 or images.missing_tools():
        pytest.skip("needs root and QEMU")
    if not list(PACKAGES.glob("*.deb")):
        pytest.skip("needs make packages")
    folder = tmp_path_factory.mktemp("guest")
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    order = Order(
        host_name="tern-12",
        user_name="azureuser",
        public_keys=(key.with_suffix(".pub").read_text().strip(),),
    )
    dvd = write_dvd(folder / "boot.iso", ovf_env(order))
    image = images.ensure_image(lambda text: print(text, file=sys.stderr, flush=True))
    with Guest(folder, image, dvd) as running:
        for deb in debian_s_packages():
            push(running, deb)
        running.must("cd /var/tmp && dpkg -i --force-depends python3-*.deb waagent_2*.deb 2>&1")
        running.wait_for(
            lambda: any(report["state"] == "Ready" for report in running.fabric.health),
            "Ready of Debian's agent",
            600,
        )
        yield running


def debian_s_packages() -> list[Path]:
    folder = cache() / "predecessor"
    folder.mkdir(exist_ok=True)
    if len(list(folder.glob("*.deb"))) < len(PREDECESSOR):
        subprocess.run(["apt-get", "download", "-q", *PREDECESSOR], cwd=folder, check=True)
    return sorted(folder.glob("*.deb"))


def push(guest: Guest, file: Path) -> None:
    guest.must(f"cat > /var/tmp/{file.name}", stdin=file.read_bytes())


def extensions(folder: Path) -> list[dict[str, Any]]:
    wanted = []
    for name, script in ENABLES.items():
        package = folder / f"{name}.zip"
        package.write_bytes(handler_zip({"enable": script}))
        wanted.append(
            {"name": name, "version": "1.0.0", "package": str(package), "public": {"a": 1}}
        )
    return wanted


def counts(guest: Guest) -> str:
    return guest.must("cd /var/tmp && grep -c . ran.* | sort")


def test_ours_debian_s_ours(guest: Guest, tmp_path: Path, shown: Any) -> None:
    guest.fabric.set_extensions(extensions(tmp_path))
    guest.wait_for(
        lambda: guest.run("test -s /var/tmp/ran.Contoso.Slow-1.0.0").status == 0,
        "the enable of Contoso.Slow under Debian's agent",
        600,
    )
    before, child = guest.must(FACTS), guest.must("cat /var/tmp/child").strip()
    (ours,) = PACKAGES.glob("*.deb")
    push(guest, ours)

    guest.must("(sleep 20; touch /var/tmp/go) >/dev/null 2>&1 &")
    said = guest.must(f"dpkg -i /var/tmp/{ours.name} 2>&1", deadline_s=600)

    shown(f"guest: {[line for line in said.splitlines() if line.startswith('handler ')]}")
    assert "stop walinuxagent.service" in said
    assert "handler Contoso.Child 1.0.0 Enabled seq 0 success: not run again, pid" in said
    assert "taken over" in said
    guest.wait_for(
        lambda: "fabric_client        READY" in guest.run("waagent-ps").stdout, "READY", 300
    )
    for name in ENABLES:
        guest.fabric.wait_extension(name, "success", 300)
    assert counts(guest).split() == [f"ran.{name}-1.0.0:1" for name in sorted(ENABLES)]
    assert guest.run(f"kill -0 {child}").status == 0
    assert guest.must(FACTS) == before
    shown("guest: ours runs, nothing ran twice, the child of Contoso.Child lives")

    guest.must("systemctl restart waagent && service walinuxagent restart", deadline_s=180)
    guest.must("cd /var/tmp && dpkg -i waagent_2*.deb 2>&1 </dev/null", deadline_s=600)
    guest.wait_for(
        lambda: guest.run("pgrep -f 'waagent -run-exthandlers|egg -run-ext'").status == 0,
        "Debian's agent again",
        300,
    )
    assert guest.must(FACTS) == before
    assert guest.run("pgrep -f '^waagent: supervisor'").status == 1

    guest.must(f"dpkg -i /var/tmp/{ours.name} 2>&1", deadline_s=600)
    guest.wait_for(
        lambda: "fabric_client        READY" in guest.run("waagent-ps").stdout, "READY again", 300
    )
    assert counts(guest).split() == [f"ran.{name}-1.0.0:1" for name in sorted(ENABLES)]
    assert guest.must(FACTS) == before
    assert "created user" not in guest.run("cat /var/log/waagent.log").stdout.split("by pid")[-1]


def test_purge_leaves_nothing_of_ours(guest: Guest) -> None:
    guest.must("dpkg -P waagent 2>&1", deadline_s=300)

    left = guest.run(
        "find / -xdev -name '*waagent*' -not -path '/var/lib/dpkg/*' -not -path '/var/tmp/*'"
        " -not -path '/proc/*' -not -path '/var/log/*' -not -path '/sys/*'"
    ).stdout
    assert left == ""
    assert guest.run("getent passwd waagent waagent-probe").stdout == ""
