"""Files that survive a crash, and files of others."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from waagent.distro import files

WRITER = """
import sys
from pathlib import Path
from waagent.distro import files
number = 0
print("go", flush=True)
while True:
    number += 1
    files.write_json(Path(sys.argv[1]) / "state", {"number": number, "filler": "x" * 100000})
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    seen: list[int] = []
    turn = 0
    while turn < 12 or not seen:
        turn += 1
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
        time.sleep(0.003 * turn)  # the moment of the kill is what varies

        writer.send_signal(signal.SIGKILL)
        writer.wait()

        value = files.read_state_json(tmp_path / "state")
        if value is not None:
            seen.append(value["number"])
            assert len(value["filler"]) == 100000
    assert not list(tmp_path.glob("*.corrupt"))


def test_temporaries_of_killed_writers_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0011").write_bytes(b"half")
    (tmp_path / "state").write_bytes(b"{}")

    removed = files.remove_temporaries(tmp_path)

    assert removed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_mode_and_content_are_as_asked_and_nothing_else_is_left(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "key", b"one", mode=0o640)
    files.write_atomic(tmp_path / "key", b"two", mode=0o600)

    assert (tmp_path / "key").read_bytes() == b"two"
    assert (tmp_path / "key").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["key"]


@pytest.mark.parametrize("broken", [b"", b'{"a": 1', b"\x00" * 40, b"\xff\xfe", b"[" * 100000])
def test_a_broken_state_file_counts_as_absent_and_is_kept_aside(
    tmp_path: Path, broken: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state.json").write_bytes(broken)

    value = files.read_state_json(tmp_path / "state.json")

    assert value is None
    assert (tmp_path / "state.json.corrupt").read_bytes() == broken
    assert not (tmp_path / "state.json").exists()
    assert "state.json.corrupt" in capfd.readouterr().err


def test_copies_of_a_file_that_breaks_again_and_again_are_bounded(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "state").write_text(f"broken {number}")
        files.read_state_json(tmp_path / "state")

    assert len(list(tmp_path.iterdir())) == 5


def test_an_absent_state_file_is_none(tmp_path: Path) -> None:
    assert files.read_state_json(tmp_path / "state") is None


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_a_secret(path: Path) -> None:
    path.symlink_to("/etc/shadow")


def make_link_to_endless_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_hard_link(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"x")
    os.link(other, path)


def make_huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(50 << 20)


def make_folder(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.open(path.parent, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


@pytest.mark.parametrize(
    "make",
    [
        make_fifo,
        make_link_to_a_secret,
        make_link_to_endless_zeros,
        make_hard_link,
        make_huge,
        make_folder,
        make_socket,
    ],
)
def test_a_trap_in_place_of_a_status_file_is_refused_at_once(tmp_path: Path, make) -> None:
    make(tmp_path / "0.status")

    with pytest.raises(files.ForeignFileError) as refused:
        files.read_foreign(tmp_path, "0.status", limit_bytes=1 << 20)

    assert "0.status" in str(refused.value)


@pytest.mark.parametrize("name", ["../secret", "a/b", "", ".", "..", "/etc/shadow"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(files.ForeignFileError):
        files.read_foreign(tmp_path, name, limit_bytes=100)


def test_a_file_of_another_owner_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.status").write_bytes(b"[]")

    with pytest.raises(files.ForeignFileError, match="belongs to uid"):
        files.read_foreign(tmp_path, "0.status", limit_bytes=100, owner_uid=os.getuid() + 4242)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status").symlink_to("/etc")

    with pytest.raises(files.ForeignFileError):
        files.read_foreign(tmp_path / "status", "passwd", limit_bytes=1 << 20)


def test_an_honest_file_is_read_and_an_absent_one_is_absent(tmp_path: Path) -> None:
    (tmp_path / "0.status").write_bytes(b"[]")

    assert files.read_foreign(tmp_path, "0.status", limit_bytes=2, owner_uid=os.getuid()) == b"[]"
    with pytest.raises(FileNotFoundError):
        files.read_foreign(tmp_path, "1.status", limit_bytes=2)


def test_a_folder_gets_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.make_folder(tmp_path / "a" / "b", 0o711)
        files.make_folder(tmp_path / "a" / "b", 0o750)
    finally:
        os.umask(before)

    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize("make", [make_link_to_a_secret, make_hard_link])
def test_what_is_no_folder_is_not_taken_for_one(tmp_path: Path, make) -> None:
    make(tmp_path / "x")

    with pytest.raises(files.FileError):
        files.make_folder(tmp_path / "x")


def test_a_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()

    with pytest.raises(IsADirectoryError):
        files.write_atomic(tmp_path / "state", b"2")

    assert os.listdir(tmp_path) == ["state"]


def test_a_tree_is_removed_and_nothing_that_its_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept")
    (tmp_path / "tree" / "below" / "empty").mkdir(parents=True)
    (tmp_path / "tree" / "below" / "file").write_text("gone")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "tree" / "below" / "dangling").symlink_to("nowhere")

    files.remove_tree(tmp_path / "tree")
    files.remove_tree(tmp_path / "absent")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["precious"]
    assert (tmp_path / "precious" / "file").read_text() == "kept"
