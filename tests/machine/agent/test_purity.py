"""What the supervisor and its workers hold: libraries, threads, descriptors."""

from __future__ import annotations

import pytest

from waagent.lab.machine import Machine

RESIDENT = ("environment_monitor", "fabric_client", "probe_responder")


def test_the_supervisor_maps_neither_zeromq_nor_xml(vm: Machine) -> None:
    maps = vm.read(f"/proc/{vm.pid_of('supervisor')}/maps")

    assert "msgpack" in maps
    assert [
        name
        for name in ("zmq", "libsodium", "lxml", "libxml2", "cryptography", "ssl")
        if name in maps
    ] == []


@pytest.mark.parametrize("name", ("zygote", *RESIDENT))
def test_no_resident_process_maps_tls_or_a_parser(vm: Machine, name: str) -> None:
    """What needs them is executed, does its work and ends."""
    pid = vm.run(["pgrep", "-f", f"^waagent: {name}"], check=True).stdout.strip()
    maps = vm.read(f"/proc/{pid}/maps")

    assert "zmq" in maps
    heavy = ("ssl", "crypto", "lxml", "libxml2", "cryptography", "psutil", "lzma", "bz2")
    assert [library for library in heavy if library in maps] == []


def test_the_supervisor_has_one_thread(vm: Machine) -> None:
    tasks = vm.run(["ls", f"/proc/{vm.pid_of('supervisor')}/task"], check=True).stdout.split()

    assert len(tasks) == 1


def test_the_supervisor_holds_nothing_on_a_disk_but_the_log(vm: Machine) -> None:
    targets = _targets(vm, vm.pid_of("supervisor"))

    memory = ("/run/", "/dev/", "/proc/", "/sys/", "/memfd:")
    on_disk = {
        target for target in targets if target.startswith("/") and not target.startswith(memory)
    }
    # the second is what this machine's init gave us as stderr
    assert on_disk <= {"/var/log/waagent.log", "/var/log/agent-console.log"}


@pytest.mark.parametrize("name", RESIDENT)
def test_a_worker_holds_nothing_of_the_supervisors(vm: Machine, name: str) -> None:
    pid, supervisor = vm.pid_of(name), vm.pid_of("supervisor")
    mine, theirs = _targets(vm, pid), _targets(vm, supervisor)

    shared = {target for target in mine & theirs if target.startswith("socket:")}
    listening = {
        f"socket:[{fields[6]}]"
        for fields in map(str.split, vm.read("/proc/net/unix").splitlines())
        if fields[3] == "00010000"
    }

    assert shared <= listening, (
        "of the supervisor's sockets only the listening ones that were handed over"
    )
    assert len(shared) <= (2 if name == "environment_monitor" else 1)
    files = {
        target
        for target in mine
        if target.startswith("/") and not target.startswith(("/dev/", "/memfd:"))
    }
    files = {target for target in files if not target.endswith(f"/w-{name}/tools/cgroup.procs")}
    assert files <= {"/run/waagent/state", f"/run/waagent/lock/{name}", "/var/log/waagent.log"}


def test_the_transfer_process_has_a_place_and_limits_of_its_own(vm: Machine) -> None:
    look = (
        "for p in $(pgrep -f 'waagent: [t]ransfer'); do grep -hs /w-fabric_client/tools"
        " /proc/$p/cgroup && exit 0; done; sleep 0.1"
    )
    vm.fabric.fault("goal_state", "hang", None, 20.0)  # whoever asks for it stays to be looked at
    try:
        vm.run(["kill", "-9", str(vm.pid_of("fabric_client"))], check=True)
        found = vm.run(["sh", "-c", f"while :; do {look}; done"])
    finally:
        vm.fabric.clear_faults()

    assert found.status == 0
    vm.wait_states(("fabric_client",))
    limit = vm.run(
        [
            "sh",
            "-c",
            (
                "cat $(find /sys/fs/cgroup -path '*w-fabric_client/tools/memory.limit_in_bytes'"
                " -o -path '*w-fabric_client/tools/memory.max')"
            ),
        ]
    ).stdout.split()
    assert set(limit) <= {str(256 << 20)}


def test_into_that_place_it_moves_nobody_elses_process(vm: Machine) -> None:
    """The supervisor kills all that is in there: an unprivileged worker must not choose whom."""
    groups = sorted(
        target
        for target in _targets(vm, vm.pid_of("fabric_client"))
        if target.endswith("/tools/cgroup.procs")
    )
    as_worker, supervisor = (
        ["setpriv", "--reuid", "waagent", "--clear-groups", "sh", "-c"],
        vm.pid_of("supervisor"),
    )
    assert groups

    for group in groups:
        own = vm.run([*as_worker, f"sleep 20 & echo $! >{group} && echo moved; kill $!"])
        theirs = vm.run([*as_worker, f"echo {supervisor} >{group} && echo moved"])

        is_v2 = (
            vm.run(["test", "-e", group.replace("cgroup.procs", "cgroup.controllers")]).status == 0
        )
        assert own.stdout == ("" if is_v2 else "moved\n"), (
            "v2 lets nobody in from outside of the worker's place"
        )
        assert theirs.stdout == "" and theirs.status != 0
    assert "/tools" not in vm.read(f"/proc/{supervisor}/cgroup")


def _targets(vm: Machine, pid: int) -> set[str]:
    listing = vm.run(
        ["sh", "-c", f"for f in /proc/{pid}/fd/*; do readlink $f; done"], check=True
    ).stdout
    return set(listing.splitlines())
