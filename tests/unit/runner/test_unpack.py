"""The unpacker against packages of every bad kind (trap 10 to 12 of the specification)."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from waagent.protocol.handler import handler_errors
from waagent.workers.extension_runner.unpack import PackageRefused, choose_entries, unpack
from waagent.workers.extension_runner.unpack_job import MIB, Bounds, Job

MANIFEST = b'[{"handlerManifest": {"installCommand": "i", "enableCommand": "e"}}]'


def a_package(
    *entries: tuple[zipfile.ZipInfo | str, bytes], manifest: bytes | None = MANIFEST
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        if manifest is not None:
            archive.writestr("HandlerManifest.json", manifest)
        for entry, data in entries:
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def an_entry(name: str, mode: int = 0o644 | stat.S_IFREG) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    return entry


@pytest.fixture()
def house(tmp_path: Path) -> Path:
    for folder in ("spool", "lib", "lib/operations"):
        (tmp_path / folder).mkdir()
    (tmp_path / "outside").write_text("untouched")
    return tmp_path


def a_job(house: Path, data: bytes, bounds: Bounds | None = None) -> Job:
    (house / "spool" / "package").write_bytes(data)
    return Job(
        str(house / "spool"),
        "package",
        len(data),
        hashlib.sha256(data).hexdigest(),
        str(house / "lib/operations/staging"),
        str(house / "lib/C.S-1.0"),
        bounds or Bounds(),
    )


def refused(house: Path, data: bytes, bounds: Bounds | None = None) -> PackageRefused:
    with pytest.raises(PackageRefused) as caught:
        unpack(a_job(house, data, bounds))
    assert os.listdir(house / "lib") == ["operations"] and os.listdir(house / "lib/operations") in (
        [],
        ["staging.lock"],
    )
    assert (
        sorted(os.listdir(house)) == ["lib", "outside", "spool"]
        and (house / "outside").read_text() == "untouched"
    )
    return caught.value


def test_a_package_becomes_a_folder_whose_files_can_be_executed(house: Path) -> None:
    data = a_package(
        (an_entry("bin/run"), b"#!/bin/sh\n"),
        (an_entry("./a//b", 0o6777 | stat.S_IFREG), b"x"),
        (an_entry("empty/", 0o40755), b""),
    )

    warnings, _ = unpack(a_job(house, data))

    folder = house / "lib/C.S-1.0"
    assert (
        warnings == []
        and (folder / "bin/run").read_bytes() == b"#!/bin/sh\n"
        and (folder / "empty").is_dir()
    )
    assert {
        path: oct((folder / path).stat().st_mode & 0o7777)
        for path in (".", "bin", "bin/run", "a/b")
    } == {
        ".": "0o700",
        "bin": "0o700",
        "bin/run": "0o744",
        "a/b": "0o755",
    }
    assert os.listdir(house / "lib/operations") in ([], ["staging.lock"])


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "C:x",
        "a\\b",
        "a\nb",
        "..",
        "x" * 256,
        "a/" * 70 + "b",
        "../outside",
        "\x1b[31m",
    ],
)
def test_an_entry_that_could_leave_is_refused_and_named(house: Path, name: str) -> None:
    error = refused(house, a_package((an_entry("placeholder"), b"1"), (an_entry(name), b"x")))

    assert error.code == handler_errors.PACKAGE_INVALID and repr(name[:120]) in str(error)


def test_a_name_with_nul_is_refused(house: Path) -> None:
    data = a_package((an_entry("nulQhere"), b"x")).replace(b"nulQhere", b"nul\x00here")

    assert "control character" in str(refused(house, data)) or "zip archive" in str(
        refused(house, data)
    )


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_devices_are_refused(house: Path, kind: int) -> None:
    error = refused(
        house, a_package((an_entry("link", kind | 0o777), b"/etc"), (an_entry("link/x"), b"x"))
    )

    assert error.code == handler_errors.PACKAGE_INVALID and "'link'" in str(error)


def test_a_link_inside_the_folder_is_unpacked_as_that_link(house: Path) -> None:
    data = a_package(
        (an_entry("lib/libx.so", stat.S_IFLNK | 0o777), b"libx.so.1"),
        (an_entry("lib/libx.so.1"), b"code"),
        (an_entry("bin/run", stat.S_IFLNK | 0o777), b"../lib/libx.so"),
        (an_entry("later", stat.S_IFLNK | 0o777), b"made/by/install"),
    )

    assert unpack(a_job(house, data))[0] == []

    folder = house / "lib/C.S-1.0"
    assert os.readlink(folder / "lib/libx.so") == "libx.so.1"
    assert (folder / "bin/run").read_bytes() == b"code"
    assert os.readlink(folder / "later") == "made/by/install"


@pytest.mark.parametrize(
    "links",
    [
        {"out": "/etc/passwd"},
        {"out": ".."},
        {"a/out": "../../outside"},
        {"out": "../tree/HandlerManifest.json"},
        {"d1/d2/up": "../..", "d1/d2/out": "up/../outside"},
        {"d1/d2/up": "../..", "z": "d1/d2/up/.."},
        {"out": "out"},
        {"a": "b", "b": "a"},
        {"out": ""},
        {"out": "x\n"},
        {"out": "x" * 5000},
    ],
)
def test_a_link_that_leads_out_refuses_the_package(house: Path, links: dict[str, str]) -> None:
    entries = [
        (an_entry(name, stat.S_IFLNK | 0o777), goal.encode()) for name, goal in links.items()
    ]

    error = refused(house, a_package(*entries))

    assert error.code == handler_errors.PACKAGE_INVALID and "is a link" in str(error)


def test_nothing_is_written_through_a_link(house: Path) -> None:
    inside = (an_entry("link", stat.S_IFLNK | 0o777), b"bin")

    assert "below a file" in str(refused(house, a_package(inside, (an_entry("link/x"), b"x"))))


def test_a_file_used_as_a_folder_is_refused(house: Path) -> None:
    assert "below a file" in str(
        refused(house, a_package((an_entry("a"), b"x"), (an_entry("a/b"), b"x")))
    )


def test_a_bomb_is_ended_by_its_ratio(house: Path) -> None:
    assert "grows more than 200 times" in str(
        refused(house, a_package((an_entry("zeros"), bytes(40 * MIB))))
    )


def test_a_package_larger_than_allowed_is_refused(house: Path) -> None:
    assert "does not fit" in str(
        refused(house, a_package((an_entry("x"), os.urandom(MIB))), Bounds(unpacked_bytes=MIB // 2))
    )


def test_a_size_in_the_header_is_not_believed(house: Path) -> None:
    data = a_package((an_entry("zeros"), bytes(3 * MIB)))
    lying = data.replace(struct.pack("<L", 3 * MIB), struct.pack("<L", 10))

    refused(house, lying, Bounds(unpacked_bytes=MIB))


def test_a_million_entries_are_refused_before_they_are_read(house: Path) -> None:
    data = bytearray(a_package())
    at = data.rfind(b"PK\x05\x06")
    struct.pack_into("<HH", data, at + 8, 0xFFFF, 0xFFFF)
    wide = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 10**6, 10**6, 46 * 10**6, 0)

    assert "1000000 entries" in str(refused(house, bytes(data[:at]) + wide + bytes(data[at:])))


def test_too_many_entries_are_refused_when_the_end_record_lies(house: Path) -> None:
    with pytest.raises(PackageRefused, match="31 entries"):
        choose_entries([an_entry(str(number)) for number in range(31)], Bounds(entries=30))


def test_an_encrypted_entry_is_refused(house: Path) -> None:
    data = bytearray(a_package(manifest=None) + b"")
    data = bytearray(a_package((an_entry("secret"), b"x")))
    at = data.rfind(b"PK\x01\x02")
    data[at + 8] |= 1

    assert "encrypted" in str(refused(house, bytes(data)))


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_truncated_archive_is_refused(house: Path, cut: int) -> None:
    assert (
        refused(house, a_package((an_entry("x"), os.urandom(1000)))[:-cut]).code
        == handler_errors.PACKAGE_INVALID
    )


def test_a_damaged_entry_is_refused(house: Path) -> None:
    data = bytearray(a_package((an_entry("x"), os.urandom(100000))))
    data[50000] ^= 0xFF

    assert refused(house, bytes(data)).code == handler_errors.PACKAGE_INVALID


@pytest.mark.parametrize("data", [b"", b"<html></html>", b"PK\x05\x06", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(house: Path, data: bytes) -> None:
    refused(house, data)


def test_of_two_entries_with_one_name_the_last_wins(house: Path) -> None:
    with pytest.warns(UserWarning):
        data = a_package((an_entry("x"), b"first"), (an_entry("x"), b"last"))

    unpack(a_job(house, data))

    assert (house / "lib/C.S-1.0/x").read_bytes() == b"last"


def test_state_of_a_used_folder_is_left_out(house: Path) -> None:
    names = [
        "config/HandlerState",
        "status/0.status",
        "mrseq",
        "one.mrseq",
        "HandlerEnvironment.json",
        "HandlerState",
        "heartbeat.log",
    ]
    data = a_package(
        *[(an_entry(name), b"Enabled") for name in names], (an_entry("keep/config/x"), b"1")
    )

    warnings, _ = unpack(a_job(house, data))

    assert sorted(os.listdir(house / "lib/C.S-1.0")) == ["HandlerManifest.json", "keep"] and len(
        warnings
    ) == len(names)


def test_a_manifest_in_a_subfolder_or_with_a_bom_is_copied_to_the_root(house: Path) -> None:
    unpack(
        a_job(
            house,
            a_package(
                (an_entry("deep/HandlerManifest.json"), b"\xef\xbb\xbf" + MANIFEST), manifest=None
            ),
        )
    )

    assert (house / "lib/C.S-1.0/HandlerManifest.json").read_bytes() == MANIFEST


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        (None, handler_errors.MANIFEST_MISSING),
        (b"[]", handler_errors.MANIFEST_INVALID),
        (b" " * (2 * MIB), handler_errors.MANIFEST_INVALID),
    ],
)
def test_without_a_usable_manifest_nothing_is_installed(
    house: Path, manifest: bytes | None, code: int
) -> None:
    assert refused(house, a_package((an_entry("x"), b"x"), manifest=manifest)).code == code


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spooled: spooled.write_bytes(spooled.read_bytes() + b"more"),
        lambda spooled: spooled.write_bytes(a_package((an_entry("other"), b"x"))),
        lambda spooled: (spooled.rename(spooled.with_name("real")), spooled.symlink_to("real")),
        lambda spooled: os.link(spooled, spooled.with_name("second")),
        lambda spooled: (spooled.unlink(), os.mkfifo(spooled)),
        lambda spooled: spooled.unlink(),
        lambda spooled: os.chown(spooled, 12345, 12345),
    ],
)
def test_a_spool_that_changed_is_refused(house: Path, spoil: Callable[[Path], object]) -> None:
    job = a_job(house, a_package((an_entry("x"), b"x")))
    spoil(house / "spool/package")

    with pytest.raises((PackageRefused, FileNotFoundError)):
        unpack(job)

    assert os.listdir(house / "lib") == ["operations"] and os.listdir(house / "lib/operations") in (
        [],
        ["staging.lock"],
    )


def test_swapping_the_spooled_file_while_it_is_unpacked_has_no_effect(house: Path) -> None:
    good = a_package((an_entry("x"), b"good"), (an_entry("filler"), os.urandom(20 * MIB)))
    evil = a_package((an_entry("x"), b"evil"), (an_entry("filler"), os.urandom(20 * MIB)))
    ended = threading.Event()

    def swap() -> None:
        spooled, other = house / "spool/package", house / "spool/other"
        while not ended.is_set():
            other.write_bytes(evil)
            other.replace(spooled)
            time.sleep(0.001)

    job = a_job(house, good)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        unpack(job)
        content = (house / "lib/C.S-1.0/x").read_bytes()
    except PackageRefused as error:
        content, code = b"refused", error.code
        assert code == handler_errors.PACKAGE_DOWNLOAD
    finally:
        ended.set()
        thread.join()

    assert content in (b"good", b"refused")


def test_what_a_failed_try_left_is_replaced_whole(house: Path) -> None:
    (house / "lib/C.S-1.0/config").mkdir(parents=True)
    (house / "lib/C.S-1.0/config/HandlerState").write_text("Enabled")

    unpack(a_job(house, a_package((an_entry("x"), b"x"))))

    assert sorted(os.listdir(house / "lib/C.S-1.0")) == ["HandlerManifest.json", "x"]
