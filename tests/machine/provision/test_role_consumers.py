"""Claims about the programs of Role.*: their argument, once for each change, and that whatever they do
holds nothing up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from lxml import etree

from waagent.lab.handlers.packages import handler_zip
from waagent.lab.machine import Machine
from waagent.lab.ovf import Order

AVm = Callable[..., Machine]
PATIENCE_S = 120.0
SAMPLES = Path(__file__).resolve().parents[3] / "docs/samples"
TELL = '#!/bin/sh\necho "$# $1 $(head -c 5 "$1" 2>/dev/null)" >> /root/told.$(basename "$0")\n'


def a_program(vm: Machine, name: str, text: str = TELL, mode: int = 0o755) -> None:
    vm.write(f"/opt/role/{name}", text.encode(), mode)


def wait_for(vm: Machine, what: str, is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < end, f"{what}: {vm.trouble()}"
        time.sleep(0.1)


def told(vm: Machine, name: str) -> list[str]:
    path = f"/root/told.{name}"
    return vm.read(path).splitlines() if vm.exists(path) else []


def a_vm_with(a_vm: AVm, public: str) -> Machine:
    options = {
        "Role.StateConsumer": "/opt/role/state",
        "Role.ConfigurationConsumer": "/opt/role/configuration",
        "Role.TopologyConsumer": "/opt/role/topology",
    }
    return a_vm(Order(public_keys=(public,)), agent=False, options=options)


def test_each_program_is_told_once_for_each_change(a_vm: AVm, public: str, tmp_path: Path) -> None:
    vm = a_vm_with(a_vm, public)
    for name in ("state", "configuration", "topology"):
        a_program(vm, name)

    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)
    wait_for(vm, "the topology consumer", lambda: len(told(vm, "topology")) == 1)

    assert told(vm, "state") == ["1 Ready "]
    assert told(vm, "configuration") == ["1 /var/lib/waagent/HostingEnvironmentConfig.xml <?xml"]
    assert told(vm, "topology") == ["1 /var/lib/waagent/SharedConfig.xml <?xml"]
    for name in ("HostingEnvironmentConfig.xml", "SharedConfig.xml"):
        came = vm.read(f"/var/lib/waagent/{name}")
        assert tags(came.encode()) == tags((SAMPLES / name).read_bytes())
    vm.run(["waagent-ps", "restart", "extension_runner"], check=True)
    vm.wait_states(["extension_runner"])

    package = tmp_path / "x.zip"
    package.write_bytes(handler_zip({}))
    handler = {"name": "Contoso.X", "version": "1.0.0", "package": str(package), "public": {}}
    vm.fabric.set_extensions([handler])
    wait_for(vm, "the second change", lambda: len(told(vm, "topology")) == 2)
    assert len(told(vm, "configuration")) == 2 and len(told(vm, "state")) == 1


def tags(document: bytes) -> list[str]:
    return [str(element.tag) for element in etree.fromstring(document).iter()]


def test_a_hanging_a_missing_and_a_crashing_program_hurt_nobody(a_vm: AVm, public: str) -> None:
    vm = a_vm_with(a_vm, public)
    a_program(vm, "state", "#!/bin/sh\necho $$ > /root/hangs; exec sleep 3600\n")
    a_program(vm, "topology", "#!/bin/sh\nkill -SEGV $$\n")

    begun = time.monotonic()
    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)
    print(f"Ready after {time.monotonic() - begun:.1f} s")

    log = "/var/log/waagent.log"
    wait_for(
        vm, "the crash told", lambda: "Role.TopologyConsumer failed: Terminated" in vm.read(log)
    )
    assert "no such program (No such file or directory): Role.ConfigurationConsumer=" in vm.read(
        log
    )
    wait_for(vm, "the hanging one", lambda: vm.exists("/root/hangs"))
    assert vm.run(["sh", "-c", "kill -0 $(cat /root/hangs)"]).status == 0
    vm.wait_states(["provisioner"], "DONE")
    assert vm.ps()["workers"] and vm.run(["waagent-ps"]).status == 0


def test_a_program_that_others_may_change_is_not_run(a_vm: AVm, public: str) -> None:
    vm = a_vm_with(a_vm, public)
    a_program(vm, "state", mode=0o777)

    vm.order("start-agent")
    vm.fabric.wait_ready(PATIENCE_S)

    assert told(vm, "state") == []
    assert "others than root may change the program" in vm.read("/var/log/waagent.log")
