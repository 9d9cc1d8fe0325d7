"""One VM's first boot, as its user and the platform see it."""

from __future__ import annotations

from pathlib import Path

from waagent.lab.machine import Machine


def test_the_user_logs_in_with_the_deployed_key_and_is_root_by_sudo(vm: Machine, key: Path) -> None:
    answer = vm.ssh("azureuser", key, "sudo -n true && id -un && hostname")

    assert (answer.status, answer.stdout.split()) == (0, ["azureuser", "tern-07"]), answer.stderr


def test_the_endpoint_was_found_by_option_245(vm: Machine) -> None:
    log = vm.read("/var/log/waagent.log")

    assert [line for line in log.splitlines() if "168.63.129.16" in line and "dhcp" in line]


def test_the_platform_was_told_starting_then_ready(vm: Machine) -> None:
    states = [(item["state"], item["substatus"]) for item in vm.fabric.health]

    assert states[0] == ("NotReady", "Provisioning")
    assert states[-1][0] == "Ready"


def test_the_fingerprint_of_the_host_key_is_in_the_role_properties(vm: Machine) -> None:
    said = vm.run(
        ["ssh-keygen", "-E", "md5", "-lf", "/etc/ssh/ssh_host_rsa_key.pub"], check=True
    ).stdout
    fingerprint = said.split()[1].removeprefix("MD5:").replace(":", "")

    properties = vm.fabric.wait_for(lambda fabric: fabric.properties, what="role properties")

    assert {"CertificateThumbprint": fingerprint} in properties


def test_the_saved_copy_of_the_dvd_is_roots_alone(vm: Machine) -> None:
    facts = vm.run(
        ["stat", "-c", "%a %U", "/var/lib/waagent/ovf-env.xml", "/var/lib/waagent"], check=True
    ).stdout.splitlines()

    assert facts == ["600 root", "700 root"]


def test_a_probe_is_answered(vm: Machine) -> None:
    answer = vm.fabric.probe(vm.address, 16001)

    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.endswith("\r\n\r\nOK")


def test_a_stricter_platform_would_have_accepted_everything(vm: Machine) -> None:
    assert vm.fabric.complaints == []
