"""The time-out of SCSI disks on a tree of sysfs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from waagent.distro import scsi_timeouts
from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.protocol.configuration import loading

LOG = Log("test", descriptor=os.open(os.devnull, os.O_WRONLY))


def a_disk(root: Path, name: str, seconds: str = "30\n") -> Path:
    file = root / f"sys/block/{name}/device/timeout"
    file.parent.mkdir(parents=True)
    file.write_text(seconds)
    return file


def configured(root: Path, text: str) -> tuple[Any, list[str]]:
    """What `OS.RootDeviceScsiTimeout=text` comes to, and what is said of it."""
    file = root / "etc/waagent.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    loaded = loading.load(Paths(root), file, judge_owner=False)
    return loaded.values["OS.RootDeviceScsiTimeout"], [str(one) for one in loaded.findings]


def test_disks_that_are_there_and_one_that_comes_later_get_it(tmp_path: Path) -> None:
    sda, sdb, other = a_disk(tmp_path, "sda"), a_disk(tmp_path, "sdb"), a_disk(tmp_path, "nvme0n1")
    (tmp_path / "sys/block/sdz").mkdir()  # one without the file holds nobody up

    scsi_timeouts.apply(Paths(tmp_path), 300, LOG)
    sdc = a_disk(tmp_path, "sdc")
    scsi_timeouts.apply(Paths(tmp_path), 300, LOG)

    assert [file.read_text()[:3] for file in (sda, sdb, sdc)] == ["300", "300", "300"]
    assert other.read_text() == "30\n"


def test_none_writes_nothing(tmp_path: Path) -> None:
    file = a_disk(tmp_path, "sda")
    value, said = configured(tmp_path, "OS.RootDeviceScsiTimeout=None\n")

    scsi_timeouts.apply(Paths(tmp_path), value, LOG)

    assert file.read_text() == "30\n"
    assert said == []


@pytest.mark.parametrize("text", ["lots", "-5", "0", "3OO", "86401"])
def test_an_invalid_number_is_named_and_writes_nothing(tmp_path: Path, text: str) -> None:
    file = a_disk(tmp_path, "sda")
    value, said = configured(tmp_path, f"OS.RootDeviceScsiTimeout={text}\n")

    scsi_timeouts.apply(Paths(tmp_path), value, LOG)

    assert file.read_text() == "30\n"
    assert len(said) == 1 and "OS.RootDeviceScsiTimeout" in said[0] and text in said[0]


def test_the_default_is_300(tmp_path: Path) -> None:
    file = a_disk(tmp_path, "sda")
    value, _ = configured(tmp_path, "\n")

    scsi_timeouts.apply(Paths(tmp_path), value, LOG)

    assert file.read_text()[:3] == "300"
