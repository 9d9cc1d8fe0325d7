"""What a handler can reach of the agent, as its author and an operator see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waagent.lab.handlers import packages
from waagent.lab.machine import Machine

PYTHON = "/usr/bin/python3 -I -S -c"
ATTEMPTS = r"""
runner=$(pgrep -f '^waagent: extension_runner$' | head -n 1)
echo "runner $runner"
try() { name=$1; shift; if "$@" > /dev/null 2>&1; then echo "$name worked"; else echo "$name denied"; fi; }
try ptrace PYTHON 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) != 0)' "${runner:-1}"
try key cat /var/lib/waagent/transport/TransportPrivate.pem
try linked cat /var/lib/waagent/TransportPrivate.pem
try settings sh -c 'cat /var/lib/waagent/Contoso.First-1.0.0/config/*.settings'
try bus PYTHON 'import socket; socket.socket(socket.AF_UNIX).connect("/run/waagent/bus/fabric_client")'
try control PYTHON 'import socket; socket.socket(socket.AF_UNIX, 5).connect("/run/waagent/control")'
try etc sh -c 'echo x > /etc/cron.d/sandbox'
try network PYTHON 'import socket; socket.create_connection(("168.63.129.16", 80), 5)'
try module PYTHON 'import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(175, b"\0", 1, b"") != 0)'
try mount sh -c 'mkdir -p /mnt/made && mount -t tmpfs made /mnt/made && echo seen > /mnt/made/file'
try strace PYTHON 'import ctypes, os, signal, sys, time
pid = os.fork()
if not pid: time.sleep(20)
done = ctypes.CDLL(None).ptrace(16, pid, 0, 0)
os.kill(pid, signal.SIGKILL)
sys.exit(done != 0)'
try own cat config/0.settings
try ps waagent-ps
try make mkdir -p /run/waagent/bus
""".replace("PYTHON", PYTHON)


def a_package(folder: Path, name: str, script: str, **top: Any) -> dict[str, Any]:
    path = folder / f"{name}.zip"
    path.write_bytes(packages.handler_zip({"enable": f"{script}\nreport success 0 done"}, top=top))
    return {"name": name, "version": "1.0.0", "package": str(path), "public": {"a": "b"}}


def tried(vm: Machine, name: str) -> dict[str, str]:
    """What each attempt of the handler came to."""
    log = vm.read(f"/var/log/azure/{name}/CommandExecution.log")
    lines = [line.split() for line in log.splitlines()]
    return {words[0]: words[1] for words in lines if words[1:] in (["worked"], ["denied"])}


def row(vm: Machine, name: str) -> dict[str, Any]:
    table = json.loads(vm.run(["waagent-ps", "--json"]).stdout)
    return next(one for one in table["operations"] if one["handler"] == name)


def test_default_keeps_accidents_out_and_changes_nothing_else(vm: Machine, tmp_path: Path) -> None:
    vm.fabric.set_extensions(
        [
            a_package(tmp_path, "Contoso.First", "true"),
        ]
    )
    vm.fabric.wait_extension("Contoso.First", "success", 90)

    vm.fabric.set_extensions(
        [
            a_package(tmp_path, "Contoso.First", "true"),
            a_package(tmp_path, "Contoso.Curious", ATTEMPTS),
        ]
    )
    vm.fabric.wait_extension("Contoso.Curious", "success", 90)

    seen = tried(vm, "Contoso.Curious")
    denied = {name for name, end in seen.items() if end == "denied"}
    assert denied == {"ptrace", "key", "linked", "settings", "bus", "control", "module"}, seen
    assert vm.read("/mnt/made/file") == "seen\n", "a mount of a handler is everybody's"
    assert vm.exists("/run/waagent/control") and vm.exists("/var/lib/waagent/transport")
    assert "masked" in vm.run(["sh", "-c", "cat /var/lib/waagent/operations/*/started.json"]).stdout
    vm.wait_states(("environment_monitor", "fabric_client", "extension_runner"))


def test_strict_denies_and_names_what_was_tried(vm: Machine, tmp_path: Path) -> None:
    vm.write("/etc/waagent/sandbox.d/Contoso.Hostile.conf", b"Profile=strict\n")
    vm.run(["rm", "-f", "/etc/cron.d/sandbox"], check=True)
    first = "umount -l /var/lib/waagent; mount -o remount,rw /; unshare -m true; true"
    vm.fabric.set_extensions(
        [a_package(tmp_path, "Contoso.Hostile", f"({first}) 2> /dev/null\n{ATTEMPTS}")]
    )
    vm.fabric.wait_extension("Contoso.Hostile", "success", 90)

    seen = tried(vm, "Contoso.Hostile")
    assert [name for name, end in seen.items() if end == "worked"] == ["own", "make"], seen
    shown = row(vm, "Contoso.Hostile")
    assert shown["profile"] == "strict"
    for named in (
        "unmount /var/lib/waagent",
        "mount /",
        "make a namespace",
        "write /etc/cron.d/sandbox",
        "connect 168.63.129.16:80",
        "load a kernel module",
        "trace a process",
        "read /var/lib/waagent/transport/TransportPrivate.pem",
        "local socket",
    ):
        assert named in shown["denied"], (named, shown["denied"])
    assert "strict, " in vm.run(["waagent-ps", "extensions"]).stdout
    assert not vm.exists("/etc/cron.d/sandbox")


def test_a_security_line_that_is_not_understood_runs_nothing(
    vm: Machine, tmp_path: Path, a_handler: Callable[..., dict[str, Any]]
) -> None:
    vm.write("/etc/waagent/sandbox.d/Contoso.Typo.conf", b"# note\nProfile=strickt\n")

    vm.fabric.set_extensions([a_package(tmp_path, "Contoso.Typo", "touch /root/ran")])
    status = vm.fabric.wait_extension("Contoso.Typo", "error", 90)

    assert "Contoso.Typo.conf:2: Profile=strickt" in status["formattedMessage"]["message"]
    assert not vm.exists("/root/ran")
