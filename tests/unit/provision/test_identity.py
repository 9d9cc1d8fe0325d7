"""Claims about the VM's id, the marker, and what a copied disk loses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.paths import Paths
from waagent.distro.run import run
from waagent.workers.provisioner import identity
from waagent.workers.provisioner.identity import ABSENT, CURRENT, EMPTY, FOREIGN

FIRMWARE = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8"
METADATA = "d0df4c54-4ecb-4a4b-9954-5bdf3ed5c3b8"


def test_gen1_firmware_swaps_and_gen2_does_not() -> None:
    assert identity.metadata_order(FIRMWARE + "\n", is_gen2=False) == METADATA
    assert identity.metadata_order(METADATA.upper(), is_gen2=True) == METADATA
    assert identity.metadata_order("To be filled by O.E.M.", is_gen2=True) == ""


@given(st.uuids())
def test_swapping_twice_changes_nothing(uuid: object) -> None:
    assert identity.swapped(identity.swapped(str(uuid))) == str(uuid)


@pytest.mark.parametrize(
    ("content", "vm_id", "verdict"),
    [
        (None, METADATA, ABSENT),
        ("", METADATA, EMPTY),
        ("\n", METADATA, EMPTY),
        (METADATA, METADATA, CURRENT),
        (FIRMWARE + "\n", METADATA, CURRENT),
        ("whatever", "", CURRENT),
        (METADATA.upper(), METADATA, CURRENT),
        ("0" * 8 + METADATA[8:], METADATA, FOREIGN),
        ("whatever", METADATA, FOREIGN),
    ],
)
def test_a_marker_is_judged_in_either_order_and_case(
    content: str | None, vm_id: str, verdict: str
) -> None:
    assert identity.judge_marker(content, vm_id) == verdict


def test_the_id_comes_from_the_firmware_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "sys/class/dmi/id").mkdir(parents=True)
    (tmp_path / "sys/class/dmi/id/product_uuid").write_text(FIRMWARE + "\n")

    assert identity.read_vm_id(Paths(tmp_path), run) == METADATA

    (tmp_path / "sys/firmware/efi").mkdir(parents=True)
    assert identity.read_vm_id(Paths(tmp_path), run) == FIRMWARE.lower()


def test_a_copied_disk_loses_cached_state_and_nothing_else(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    handler_gone = ["mrseq", "config/0.settings", "config/HandlerStatus", "status/0.status"]
    gone = ["Incarnation", "GoalState.7.xml", *(f"A.B-1.0/{name}" for name in handler_gone)]
    kept = [
        "ovf-env.xml",
        "provisioned",
        "ABCD.crt",
        "A.B-1.0/HandlerManifest.json",
        "A.B-1.0/bin/run.sh",
        "transport/key.pem",
    ]
    for name in gone + kept:
        (paths.library / name).parent.mkdir(parents=True, exist_ok=True)
        (paths.library / name).write_text("x")
    (tmp_path / "var/lib/dhcp").mkdir(parents=True)
    (tmp_path / "var/lib/dhcp/dhclient.eth0.leases").write_text("x")

    removed = identity.clean_cached_state(paths)

    assert len(removed) == len(gone) + 1
    assert all((paths.library / name).exists() for name in kept)
    assert identity.clean_cached_state(paths) == []
