"""Which names become paths."""

from __future__ import annotations

import pytest

from waagent.protocol.handler import handler_names
from waagent.protocol.handler.handler_errors import NameRefused


def test_a_folder_is_split_at_its_last_dash() -> None:
    assert handler_names.split_folder("Contoso.A-B.Linux-1.0.0.0") == (
        "Contoso.A-B.Linux",
        "1.0.0.0",
    )


@pytest.mark.parametrize(
    "folder",
    [
        "events",
        "history",
        "WALinuxAgent-2.2.53",
        "Contoso.Sample",
        "Contoso.Sample-",
        "-1.0",
        "a/b-1.0",
        "operations",
    ],
)
def test_other_folders_are_no_handlers(folder: str) -> None:
    assert handler_names.split_folder(folder) is None


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", ".hidden", "a b", "a\n", "x" * 129, "WALinuxAgent", "a\x00"]
)
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(NameRefused):
        handler_names.refuse_bad_name(name)


@pytest.mark.parametrize(
    "version", ["", "1.", "1.0.0.0.0", "1.0-1", "v1", "../1", "1.0\n", "９.0", "1" * 100]
)
def test_a_version_is_one_to_four_numbers(version: str) -> None:
    with pytest.raises(NameRefused):
        handler_names.refuse_bad_version(version)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x", "x" * 129])
def test_an_extension_name_stays_a_file_name(name: str) -> None:
    with pytest.raises(NameRefused):
        handler_names.refuse_bad_extension(name)


def test_versions_written_differently_are_equal() -> None:
    assert (
        handler_names.version_key("1.0")
        == handler_names.version_key("1.0.0.0")
        < handler_names.version_key("1.0.0.1")
    )
