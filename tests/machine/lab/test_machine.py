"""The throw-away machine: it comes up with namespaces of its own, and nothing of it stays, however
it ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.lab.dvd import write_dvd
from waagent.lab.machine import layers
from waagent.lab.machine.machine import Machine
from waagent.lab.ovf import Order, ovf_env

ROOT = Path(__file__).resolve().parents[3]
LOOKS = ("users", "mounts", "links", "routes", "netns", "host name")
END_S = 90.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the machine needs root")

_spec = importlib.util.spec_from_file_location("host_state", ROOT / "tests" / "host_state.py")
assert _spec is not None and _spec.loader is not None
host_state = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(host_state)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    dvd = write_dvd(folder / "dvd.iso", ovf_env(Order(host_name="web1")))
    with Machine(folder, dvd=dvd, agent=False, host_name="fresh") as made:
        yield made


def test_it_has_namespaces_of_its_own(machine: Machine) -> None:
    kinds = ("mnt", "net", "pid", "uts", "ipc", "cgroup")

    inside = {
        kind: machine.run(["readlink", f"/proc/self/ns/{kind}"], check=True).stdout.strip()
        for kind in kinds
    }

    assert [kind for kind in kinds if inside[kind] == os.readlink(f"/proc/self/ns/{kind}")] == []
    assert machine.run(["hostname"]).stdout.strip() == "fresh"


def test_its_address_came_by_dhcp_and_only_a_default_route(machine: Machine) -> None:
    routes = machine.run(["ip", "route"]).stdout.splitlines()

    assert [route.split(" proto")[0].strip() for route in routes] == [
        "default via 10.4.0.1 dev eth0",
        "10.4.0.0/24 dev eth0",
    ]
    assert "option:245   a8:3f:81:10" in (machine.folder / "dnsmasq.log").read_text()


def test_the_platform_answers_at_its_address(machine: Machine) -> None:
    script = (
        "import urllib.request as u; print(u.urlopen('http://168.63.129.16/?comp=versions',"
        " timeout=9).read().decode())"
    )

    done = machine.run(["/usr/bin/python3", "-c", script])

    assert "<Version>2012-11-30</Version>" in done.stdout, done.stderr


def test_the_disc_is_a_block_device_that_can_be_read(machine: Machine) -> None:
    script = (
        "import io, pycdlib; disc = pycdlib.PyCdlib(); disc.open('/dev/sr0'); out = io.BytesIO();"
        "disc.get_file_from_iso_fp(out, joliet_path='/ovf-env.xml'); print(out.getvalue().decode())"
    )

    kind = machine.run(["stat", "-c", "%F", "/dev/sr0"]).stdout.strip()
    done = machine.run(["/usr/lib/waagent/bin/python", "-c", script])

    assert kind == "block special file"
    assert "<HostName>web1</HostName>" in done.stdout, done.stderr


def test_what_is_changed_inside_does_not_change_the_host(machine: Machine) -> None:
    machine.run(["useradd", "--create-home", "lab-visitor"], check=True)
    machine.write("/etc/lab-was-here", b"x")

    assert "lab-visitor" in machine.read("/etc/passwd")
    assert (
        "lab-visitor" not in Path("/etc/passwd").read_text()
        and not Path("/etc/lab-was-here").exists()
    )


def test_a_key_in_the_home_folder_opens_ssh(machine: Machine, tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True
    )
    machine.write("/root/.ssh/authorized_keys", (tmp_path / "key.pub").read_bytes(), 0o600)

    first = machine.ssh("root", tmp_path / "key", "echo $SSH_CONNECTION")
    machine.run(["service", "ssh", "restart"], check=True)
    second = machine.ssh("root", tmp_path / "key", "hostname")

    assert first.stdout.split()[2] == machine.address, first.stderr
    assert second.stdout == "fresh\n", second.stderr


def test_commands_can_join_the_machines_cgroups(machine: Machine) -> None:
    done = machine.run(["cat", "/proc/self/cgroup"], joined=True, check=True)

    assert {line.rsplit(":", 1)[1] for line in done.stdout.split()} == {"/"}


def leftovers(name: str) -> list[str]:
    """What is still there of the machine ``name``: cgroups, processes, loop devices, its folder's
    mounts.
    """
    looked = [
        *host_state.cgroups(),
        *host_state.processes(),
        *host_state.loops(),
        *host_state.mounts(),
    ]
    return [line for line in looked if name in line]


def wait_gone(name: str) -> list[str]:
    end = time.monotonic() + END_S
    while leftovers(name) and time.monotonic() < end:
        time.sleep(0.1)
    return leftovers(name)


def test_nothing_stays_after_a_proper_end(tmp_path: Path) -> None:
    layers.ensure(print)
    before = host_state.state(LOOKS)
    dvd = write_dvd(tmp_path / "dvd.iso", ovf_env(Order()))
    with Machine(tmp_path, dvd=dvd, agent=False) as made:
        assert any(str(dvd) in line for line in host_state.loops())
        assert leftovers(made.name) != []

    assert wait_gone(made.name) == [] and not made.folder.exists()
    assert not any(str(dvd) in line for line in host_state.loops())
    left = host_state.differences(before, host_state.state(LOOKS))
    ours = [line for line in left if str(tmp_path) in line or "/pytest-of-" not in line]
    assert ours == [], "other tests mount things in their own folders"


STARTER = """
import json, sys, time
from pathlib import Path
from waagent.lab.machine.machine import Machine
made = Machine(Path(sys.argv[1]), dvd=Path(sys.argv[2]), agent=False)
made.popen(["setsid", "sleep", "1000"])
print(json.dumps([made.name, made.init, made._keeper.pid]), flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("victim", ["the test", "the keeper"])
def test_nothing_stays_after_kill_9(tmp_path: Path, victim: str) -> None:
    dvd = write_dvd(tmp_path / "dvd.iso", ovf_env(Order()))
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), str(dvd)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert starter.stdout is not None
    name, init, keeper = json.loads(starter.stdout.readline())

    os.kill(starter.pid if victim == "the test" else keeper, signal.SIGKILL)

    left = wait_gone(name) if victim == "the test" else []
    starter.kill()
    starter.wait()
    starter.stdout.close()
    if victim == "the keeper":  # its cgroups are empty; the next machine sweeps them
        with Machine(tmp_path / "next", agent=False):
            pass
        left = wait_gone(name)
    assert left == []
    assert not Path("/proc", str(init)).exists()
    assert not any(str(dvd) in line for line in host_state.loops())
