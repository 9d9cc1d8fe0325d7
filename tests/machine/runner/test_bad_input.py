"""Packages and status files that mean harm: only their own extension is affected."""

from __future__ import annotations

import io
import os
import stat
import zipfile

import pytest

from tests.machine.runner.runner_house import House, a_status, handler

BAD = "Contoso.Bad"
GOOD = "Contoso.Good"
MIB = 1024 * 1024
HARMFUL = {
    "Fifo": ("mkfifo status/0.status", "not a regular file"),
    "Shadow": ("ln -s /etc/shadow status/0.status", "a link"),
    "Zero": ("ln -s /dev/zero status/0.status", "a link"),
    "Hard": ("echo '[]' > x; ln x status/0.status", "2 links"),
    "Large": ("head -c 50000000 /dev/zero > status/0.status", "50000000 bytes"),
    "Half": ("echo '[{' > status/0.status", "not JSON"),
    "FolderLink": ("rm -rf status; ln -s /etc status", ""),
    "FolderFifo": ("rmdir status; mkfifo status", "cannot be read"),
}
"""What a handler puts in the place of its status file -> what is reported, empty: that there is
none.
"""


def an_archive(
    house: House, name: str, data: bytes = b"x", mode: int = stat.S_IFREG | 0o644
) -> bytes:
    buffer = io.BytesIO(house.archive(BAD))
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "mode"),
    [
        ("../x", b"x", stat.S_IFREG | 0o644),
        ("/etc/x-from-a-package", b"x", stat.S_IFREG | 0o644),
        ("out", b"/etc", stat.S_IFLNK | 0o777),
        ("bomb", bytes(40 * MIB), stat.S_IFREG | 0o644),
    ],
    ids=["parent", "absolute", "link", "bomb"],
)
def test_a_package_that_means_harm_is_refused_and_named(
    house: House, name: str, data: bytes, mode: int
) -> None:
    house.package(BAD, data=an_archive(house, name, data, mode))
    house.package(GOOD)
    house.start()

    house.want(handler(BAD), handler(GOOD))

    house.wait_state(GOOD, "success")
    status = house.wait_state(BAD, "error")
    assert status["code"] == 1005 and repr(name) in status["formattedMessage"]["message"]
    assert (house.last(BAD)["handler_status"], house.last(BAD)["handler_code"]) == (
        "NotReady",
        1005,
    )
    assert (
        house.calls(BAD) == []
        and not (house.lib / f"{BAD}-1.0.0").exists()
        and not (house.lib / "x").exists()
    )
    assert "package refused" in house.log() and not any(
        path.name.startswith("staging") and path.is_dir()
        for path in (house.lib / "operations").iterdir()
    )


@pytest.mark.parametrize(("manifest", "code"), [(b"[]", 1003), (None, 1002)])
def test_a_package_without_a_manifest_is_refused(
    house: House, manifest: bytes | None, code: int
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x" if manifest is None else "HandlerManifest.json", manifest or b"")
    house.package(BAD, data=buffer.getvalue())
    house.start()

    house.want(handler(BAD))

    assert house.wait_state(BAD, "error")["code"] == code


def test_a_package_that_is_not_there_yet_is_waited_for(house: House) -> None:
    house.start()
    house.want(handler(GOOD))
    house.wait(lambda: "next try" in house.last(GOOD).get("handler_message", ""))
    assert house.status(GOOD)["status"] == "transitioning"

    house.package(GOOD)
    house.want(handler(GOOD))

    house.wait_state(GOOD, "success")


def test_status_files_that_mean_harm_hurt_only_their_extension(house: House) -> None:
    for name, (script, _) in HARMFUL.items():
        house.package(f"Bad.{name}", enable=script)
    house.package(GOOD, enable="sleep 1;" + a_status())
    house.start()

    house.want(*[handler(f"Bad.{name}") for name in HARMFUL], handler(GOOD))

    house.wait_state(GOOD, "success")
    for name, (_, words) in HARMFUL.items():
        house.wait(lambda name=name: house.last(f"Bad.{name}").get("handler_status") == "Ready")  # type: ignore[misc]
        status = house.wait_state(f"Bad.{name}", "error" if words else "transitioning")
        assert not words or (
            status["code"] == 1012 and words in status["formattedMessage"]["message"]
        )
    assert "root:" not in (house.root / "reports.jsonl").read_text()


def test_a_status_that_recovers_is_reported(house: House) -> None:
    house.package(
        BAD,
        enable=(
            f"mkfifo status/0.status; (sleep 3; rm status/0.status; {a_status('at last')}) & true"
        ),
    )
    house.start()

    house.want(handler(BAD))

    assert house.wait_state(BAD, "success")["formattedMessage"]["message"] == "at last"


def test_a_bad_name_never_becomes_a_path(house: House) -> None:
    house.start()

    house.want(handler("../../evil"), handler(GOOD, version="../1"))

    house.wait(
        lambda: (
            house.last("../../evil").get("handler_code") == -1
            and house.last(GOOD).get("handler_code") == -1
        )
    )
    assert "Ran into config errors" in house.last("../../evil")["handler_message"]
    assert (
        sorted(os.listdir(house.lib)) == ["operations", "provisioned"]
        and os.listdir(house.lib / "operations/handlers") == []
    )
