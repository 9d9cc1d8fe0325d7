"""What the supervisor and its workers hold: libraries, threads, descriptors."""

from __future__ import annotations

import pytest

from waagent.lab.machine import Machine

RESIDENT = ("environment_monitor", "fabric_client", "probe_responder")


def test_the_supervisor_maps_neither_zeromq_nor_xml(vm: Machine) -> None:
    maps = vm.read(f"/proc/{vm.pid_of('supervisor')}/maps")

    assert "msgpack" in maps
    assert [name for name in ("zmq", "libsodium", "lxml", "libxml2", "cryptography", "ssl") if name in maps] == []


def test_the_supervisor_has_one_thread(vm: Machine) -> None:
    tasks = vm.run(["ls", f"/proc/{vm.pid_of('supervisor')}/task"], check=True).stdout.split()

    assert len(tasks) == 1


def test_the_supervisor_holds_nothing_on_a_disk_but_the_log(vm: Machine) -> None:
    targets = _targets(vm, vm.pid_of("supervisor"))

    memory = ("/run/", "/dev/", "/proc/", "/sys/", "/memfd:")
    on_disk = {target for target in targets if target.startswith("/") and not target.startswith(memory)}
    assert on_disk <= {"/var/log/waagent.log"}


@pytest.mark.parametrize("name", RESIDENT)
def test_a_worker_holds_nothing_of_the_supervisors(vm: Machine, name: str) -> None:
    pid, supervisor = vm.pid_of(name), vm.pid_of("supervisor")
    mine, theirs = _targets(vm, pid), _targets(vm, supervisor)

    shared = {target for target in mine & theirs if target.startswith("socket:")}
    listening = {f"socket:[{fields[6]}]" for fields in map(str.split, vm.read("/proc/net/unix").splitlines()) if fields[3] == "00010000"}

    assert shared <= listening, "of the supervisor's sockets only the listening one that was handed over"
    assert len(shared) <= 1
    files = {target for target in mine if target.startswith("/") and not target.startswith(("/dev/", "/memfd:"))}
    assert files <= {"/run/waagent/state", f"/run/waagent/lock/{name}", "/var/log/waagent.log"}


def _targets(vm: Machine, pid: int) -> set[str]:
    listing = vm.run(["sh", "-c", f"for f in /proc/{pid}/fd/*; do readlink $f; done"], check=True).stdout
    return set(listing.splitlines())
