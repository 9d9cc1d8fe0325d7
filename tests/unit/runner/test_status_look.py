"""The cheap look at a status file, before a reader is started for it."""

from __future__ import annotations

from pathlib import Path

from waagent.workers.extension_runner.status_collector import Watch, look, mount_points


def a_watch(library: Path) -> Watch:
    return Watch("C.S.", str(library / "C.S-1.0/status"), "0.status", "C.S")


def test_a_look_gives_what_changes_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "C.S-1.0/status").mkdir(parents=True)
    assert look(a_watch(tmp_path), ()) == ()
    file = tmp_path / "C.S-1.0/status/0.status"
    file.write_text("one")

    before = look(a_watch(tmp_path), ())
    file.write_text("other")

    assert before != look(a_watch(tmp_path), ()) and before is not None and before[1] == 3


def test_a_link_on_the_way_or_a_mount_below_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "C.S-1.0").mkdir()
    (tmp_path / "C.S-1.0/status").symlink_to("/etc")

    assert look(a_watch(tmp_path), ()) is None
    assert look(a_watch(tmp_path / "other"), (str(tmp_path / "other/C.S-1.0/status"),)) is None
    assert "/" in (mount_points() or ())
