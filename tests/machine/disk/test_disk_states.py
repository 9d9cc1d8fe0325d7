"""What becomes of a resource disk: a table of states, each with real tools on a loop device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.machine.disk.disk_states import (
    FORMATTED,
    LEFT,
    MOUNTED,
    REUSED,
    STATES,
    USER_FILE,
    State,
)


def test_each_disk_becomes_what_it_must_and_no_byte_of_a_user_is_lost(
    a_disk: Callable[..., Any], shown: Any
) -> None:
    wrong = []
    for state in STATES:
        disk = a_disk(state.size_mib, read_only=state.read_only)
        state.make(disk)
        before = disk.digest()

        said = disk.use(**state.options)

        problem = problem_of(state, disk, said, before)
        if problem:
            wrong.append(f"{state.name}: {problem}; {said['summary']}; {said['log'][-300:]}")
        disk.detach()

    shown(f"resource disk: {len(STATES)} states of a disk, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)


def problem_of(state: State, disk: Any, said: dict[str, str], before: str) -> str:
    """What is not as it must be; empty when all is."""
    where = disk.mounted()
    if state.says not in said["summary"] + said["log"]:
        return f"does not say {state.says!r}"
    if state.outcome == LEFT:
        return "" if disk.digest() == before else "its bytes changed"
    if len(where) != 1:
        return f"mounted {where}"
    _, point, kind = where[0]
    text = disk.vm.read(f"{point}/DATALOSS_WARNING_README.txt")
    if "can be lost at any time" not in text:
        return "no warning"
    if state.outcome == REUSED:
        return "" if point == "/mnt/cloud" else f"it is at {point}"
    if point != "/mnt/resource":
        return f"it is at {point}"
    if state.outcome == MOUNTED:
        return "" if disk.vm.read(f"{point}/mine").strip() == USER_FILE else "the file is gone"
    assert state.outcome == FORMATTED
    wanted = state.options.get("Filesystem", "ext4")
    table = disk.vm.run(["sfdisk", "--dump", disk.device]).stdout
    types = [
        line.rpartition("type=")[2].partition(",")[0]
        for line in table.splitlines()
        if "type=" in line
    ]
    linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4" if state.size_mib > 2 << 20 else "83"
    if kind != wanted or types != [linux]:
        return f"it is {kind}, types {types}"
    options = disk.vm.run(["findmnt", "-no", "OPTIONS", point]).stdout
    asked = [word for word in str(state.options.get("MountOptions", "")).split(",") if word]
    return "" if all(word in options for word in asked) else f"options {options}"
