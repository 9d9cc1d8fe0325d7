"""What a predecessor's state means, read from a root prefix; and the settings that keep it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from waagent.distro.paths import Paths
from waagent.protocol import taken_over_file
from waagent.protocol.taken_over_file import Settled
from waagent.supervisor.commands import arguments, predecessor, table, take_over_plan


def a_handler(root: Path, name: str, status: str | None, *, sequence: int = 2) -> Path:
    folder = root / f"var/lib/waagent/{name}-1.0"
    (folder / "config").mkdir(parents=True)
    (folder / "status").mkdir()
    (folder / "HandlerManifest.json").write_text("[]")
    (folder / "config/HandlerState").write_text("Enabled")
    for number in range(sequence + 1):
        (folder / f"config/{number}.settings").write_text("{}")
    if status is not None:
        said = {"operation": "Enable", "status": status, "code": 0}
        document = [{"version": 1.0, "timestampUTC": "2026-01-01T00:00:00Z", "status": said}]
        (folder / f"status/{sequence}.status").write_text(json.dumps(document))
    return folder


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()


def in_unit(root: Path, *found: subprocess.Popen[bytes]) -> None:
    group = root / "sys/fs/cgroup/system.slice/walinuxagent.service"
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.procs").write_text("".join(f"{one.pid}\n" for one in found))


def test_an_empty_machine_and_one_of_ours_have_nothing_to_take_over(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert not predecessor.look(paths).is_there

    a_handler(tmp_path, "Contoso.One", "success")
    assert predecessor.look(paths).is_there

    (paths.operations / "handlers").mkdir(parents=True)
    assert not predecessor.look(paths).is_there


def test_a_handler_whose_leftovers_live_is_settled_one_whose_died_is_not(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    paths = Paths(tmp_path)
    for name, status in (("Lives", "success"), ("Died", "success"), ("Open", "transitioning")):
        folder = a_handler(tmp_path, name, status)
        processes.append(subprocess.Popen(["sleep", "600"], cwd=folder))
    a_handler(tmp_path, "Quiet", "error")
    agent = tmp_path / "waagent"
    agent.write_text("sleep 600; :")
    processes.append(subprocess.Popen(["sh", str(agent), "-daemon"]))
    in_unit(tmp_path, *processes)
    for one in processes:  # a program that has just been executed has no words yet
        while not Path(f"/proc/{one.pid}/cmdline").read_bytes():
            time.sleep(0.01)

    before = predecessor.look(paths)
    flying = predecessor.in_flight(before)
    processes[1].kill()
    processes[1].wait()
    settled = predecessor.settled(before, predecessor.still_alive(before.processes))

    assert before.unit == "walinuxagent.service"
    assert [one.handler for one in flying] == ["Open-1.0"]
    assert {(one.handler, one.sequence) for one in settled} == {("lives", 2), ("quiet", 2)}


def test_without_its_service_nobody_knows_what_died(tmp_path: Path) -> None:
    a_handler(tmp_path, "Contoso.One", "success")
    left = predecessor.look(Paths(tmp_path))

    assert predecessor.settled(left, ()) == []
    (line,) = (line for line in take_over_plan.lines_of(left, "", ()) if line.startswith("handler"))
    assert "ENABLE once, as after a boot" in line


def test_absent_keys_keep_the_meaning_that_they_had() -> None:
    text = take_over_plan.kept_settings("ResourceDisk.Format=y\n# LBProbeResponder=y\n")

    given = dict(line.split("=") for line in text.splitlines() if line[:1] != "#")
    assert given["Provisioning.MonitorHostName"] == "n"
    assert "ResourceDisk.Format" not in given
    whole = "".join(f"{name}=y\n" for name in take_over_plan.PREDECESSOR_DEFAULTS)
    assert take_over_plan.kept_settings(whole) == ""


def test_units_that_it_made_are_named_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system/walinuxagent.service.d"
    folder.mkdir(parents=True)
    made, own = folder / "12-CPUQuota.conf", folder / "mine.conf"
    made.write_text("# This drop-in unit file was created by the Azure VM Agent.\n[Service]\n")
    own.write_text("[Service]\nNice=5\n")

    assert predecessor.look(Paths(tmp_path)).files == (made,)


def test_what_was_settled_holds_in_its_boot_only() -> None:
    row = Settled("contoso.one", "1.0", "", 3)
    document = json.loads(taken_over_file.packed("boot-1", [row]))

    assert taken_over_file.parsed(document, "boot-1") == {row}
    assert taken_over_file.parsed(document, "boot-2") == frozenset()
    assert taken_over_file.parsed(["nonsense"], "boot-1") == frozenset()
    document["settled"].append({"handler": os.sep})
    assert taken_over_file.parsed(document, "boot-1") == {row}


def test_every_command_of_the_words_can_be_carried_out() -> None:
    here = {word.name for word in arguments.COMMANDS if word.when == arguments.HERE}

    assert here == set(table._COMMANDS)
