"""The provisioner killed at many points of its run ends in the same files, accounts and reports as one
that nobody disturbed.

WAAGENT_KILL_POINTS (12) says at how many; `make kills` takes 50.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from waagent.lab.machine import Machine
from waagent.lab.ovf import Order

AVm = Callable[..., Machine]
PATIENCE_S = 120.0
POINTS = int(os.environ.get("WAAGENT_KILL_POINTS", "12"))
FOLDERS = "/etc /home /var/lib/waagent /var/lib/hyperv"
KEEP = (
    f"mkdir /snapshot && for d in {FOLDERS}; do mkdir -p $d && cp -a --parents $d /snapshot/; done"
)
RESTORE = f"""
for d in {FOLDERS}; do
    find $d -mindepth 1 -delete 2>/dev/null
    cp -a /snapshot$d/. $d/ 2>/dev/null
done
rm -rf /run/waagent/state /var/log/waagent.log /var/custom
"""
# every file, its mode and owner; contents where they are no random numbers
STATE = f"""
find {FOLDERS} -printf '%p %M %u:%g %y\\n' | grep -v '/etc/[a-z]*- \\|/.cache\\|/transport\\|\\.lock '
find {FOLDERS} -type f | grep -v 'ssh_host\\|shadow\\|/etc/[a-z]*-$\\|/transport\\|waagent/[0-9A-F]*\\.\\|kvp\\|\\.json$\\|/custom-data/\\|\\.lock$' |
    sort | xargs sha256sum
sed 's/^\\(harbor:\\)[^:]*:/\\1HASH:/' /etc/shadow
ls /etc/ssh; stat -c '%n %a' /etc/ssh/ssh_host*
tr '\\0' '\\n' < /var/lib/hyperv/.kvp_pool_1 | sed '/^$/d; s/timestamp=[^|]*//'
cat /var/custom; hostname
"""


KILL = """
until pid=$(pgrep -x provisioner); do :; done
sleep {after_s:.3f}
kill -9 $pid && echo killed
"""
LIFE = """
until pid=$(pgrep -x provisioner); do :; done
begun=$(date +%s%N)
while kill -0 $pid 2>/dev/null; do sleep 0.01; done
echo $(( ($(date +%s%N) - begun) / 1000000 ))
"""


def run_once(vm: Machine, script: str) -> tuple[list[str], list[str], str]:
    """(state, reports, what ``script`` said, which runs meanwhile) of one first boot."""
    vm.run(["sh", "-c", RESTORE])
    vm.run(["hostname", "localhost"], check=True)
    before = len(vm.fabric.health)
    beside = vm.popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    vm.order("start-agent")
    vm.wait_states(["provisioner"], "DONE", PATIENCE_S)
    said = beside.communicate(timeout=30)[0].decode().strip()
    vm.order("stop-agent")
    reports = [f"{item['state']} {item['substatus']}" for item in vm.fabric.health[before:]]
    state = sorted(set(vm.run(["sh", "-c", STATE]).stdout.splitlines()))
    return state, sorted(set(reports)), said


def test_it_ends_the_same_wherever_it_is_killed(a_vm: AVm, public: str) -> None:
    vm = a_vm(
        Order(
            user_name="harbor",
            password="x y z",
            public_keys=(public,),
            custom_data=b"#!/bin/sh\necho ran >> /var/custom\n",
        ),
        agent=False,
        sshd=False,
        options={"Provisioning.ExecuteCustomData": "y", "Provisioning.DeleteRootPassword": "y"},
        files={"/var/lib/hyperv/.kvp_pool_1": ""},
    )
    vm.run(["sh", "-c", KEEP], check=True)
    undisturbed, reports, length_ms = run_once(vm, LIFE)

    differences = []
    kills = 0
    for point in range(POINTS):
        after_s = int(length_ms) / 1000 * point / POINTS
        state, told, said = run_once(vm, KILL.format(after_s=after_s))
        kills += said == "killed"
        for line in set(undisturbed) ^ set(state):
            differences.append(f"{point}: {'+' if line in state else '-'} {line}")
        if told != reports:
            differences.append(f"{point}: reports {told}, not {reports}")

    print(
        f"{POINTS} points over {length_ms} ms, {kills} kills, {len(undisturbed)} facts compared, {differences=}"
    )
    assert differences == []
    assert kills > POINTS // 2
    assert "ran" in undisturbed and any(line.startswith("harbor:HASH") for line in undisturbed)
