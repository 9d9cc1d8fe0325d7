"""When VMM's disc is looked for, and how its script is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from waagent.distro.paths import Paths
from waagent.workers.vmm_bootstrapper.vmm_disc import AZURE_TAG, drives, is_wanted
from waagent.workers.vmm_bootstrapper.vmm_install import command_of


@pytest.mark.parametrize(
    ("configured", "vendor", "tag", "wanted"),
    [
        ("auto", "Microsoft Corporation", "1234", True),
        ("auto", "Microsoft Corporation", AZURE_TAG, False),
        ("auto", "QEMU", "1234", False),
        (True, "Microsoft Corporation", AZURE_TAG, True),
        (False, "Microsoft Corporation", "1234", False),
    ],
)
def test_auto_looks_on_microsofts_hosts_that_are_not_azure(
    tmp_path: Path, configured: object, vendor: str, tag: str, wanted: bool
) -> None:
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "sys_vendor").write_text(vendor + "\n")
    (folder / "chassis_asset_tag").write_text(tag + "\n")

    assert is_wanted(Paths(tmp_path), configured) is wanted


def test_only_optical_drives_are_looked_at_each_once(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("sda", "sr0", "sr10", "hdc", "hda", "vdb", "cdrecorder"):
        (tmp_path / "dev" / name).touch()
    (tmp_path / "dev/cdrom").symlink_to("sr0")

    assert drives(Paths(tmp_path)) == ["cdrom", "hdc", "sr10"]


def test_the_script_gets_its_one_argument_as_it_always_did() -> None:
    assert command_of(Path("/x")) == "exec /bin/bash /x/install '-p /x/ '"
