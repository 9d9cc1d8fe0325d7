"""Folders of operations whose records are nonsense cost nobody anything."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from waagent.distro.operations.operation_tree import operation_tree
from waagent.distro.paths import Paths
from waagent.protocol.base.log import PROCESS
from waagent.workers.extension_runner.tracking import KEPT_FINISHED, Tracking


class _NoLauncher:
    """Nothing is started here."""


@pytest.fixture
def tracking(tmp_path: Path) -> Tracking:
    paths = Paths(tmp_path)
    paths.operations.mkdir(parents=True)
    tree = operation_tree(enabled=False, name="none")
    return Tracking(paths, tree, PROCESS, _NoLauncher(), systemd=False, subreaper=False)


@pytest.mark.parametrize(
    "planned",
    [
        None,
        [],
        {"place": 7, "handler": 1},
        {"place": {"command": [1], "shim": "xx"}},
        {"handler": "C.S", "version": 1, "operation": {}, "extension": "", "sequence": "x"},
    ],
)
def test_a_plan_of_nonsense_is_nobodys_and_goes_with_the_oldest(
    tracking: Tracking, tmp_path: Path, planned: object
) -> None:
    folders = [Paths(tmp_path).operations / f"{number:032x}" for number in range(KEPT_FINISHED + 1)]
    for age, folder in enumerate(folders):
        folder.mkdir()
        os.utime(folder, (age, age))
    (folders[0] / "planned.json").write_text(json.dumps(planned))
    os.utime(folders[0], (0, 0))

    key = tracking.key_of(folders[0])
    tracking.prune(set())

    assert key is None
    assert not folders[0].exists() and folders[1].exists()
