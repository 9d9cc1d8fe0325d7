"""Updates, downgrades, removals: the commands in their order, and the environment that each saw."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.machine.runner.runner_house import House, a_status, handler, settings

NAME = "Contoso.Sample"
SHOWN = (
    "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION",
    "VERSION",
    "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE",
    "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS",
    "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE",
)


def a_package(
    house: House, version: str, *, fails: dict[str, int] | None = None, **more: Any
) -> None:
    """Each command notes the version that it belongs to and what it was told of the update."""
    told = "|".join(f"${{{name}-}}" for name in SHOWN)
    texts = {}
    for word in ("install", "enable", "disable", "update", "uninstall"):
        note = f'echo "$AZURE_GUEST_AGENT_EXTENSION_VERSION {word}|{told}" >> {house.root}/order\n'
        ending = f"exit {(fails or {})[word]}\n" if word in (fails or {}) else ""
        texts[word] = note + ending + (a_status(version) if word == "enable" else "")
    house.package(NAME, version=version, **texts, **more)


def order(house: House) -> list[str]:
    path = house.root / "order"
    return path.read_text().splitlines() if path.exists() else []


def folders(house: House) -> list[str]:
    return sorted(path.name for path in house.lib.iterdir() if path.name.startswith("Contoso"))


def an_installed(house: House, version: str = "1.0.0", **more: Any) -> None:
    a_package(house, version, **more)
    house.start()
    house.want(handler(NAME, settings(4), version=version))
    house.wait_state(NAME, "success", sequence=4)
    (house.root / "order").unlink()


def test_an_update_runs_the_commands_of_both_versions_in_the_contracts_order(house: House) -> None:
    an_installed(house)
    (house.lib / f"{NAME}-1.0.0/mrseq").write_text("4")
    a_package(house, "2.0.0")

    house.want(handler(NAME, settings(5), version="2.0.0"))
    house.wait_state(NAME, "success", sequence=5)
    house.wait(lambda: folders(house) == [f"{NAME}-2.0.0"])

    assert order(house) == [
        "1.0.0 disable|||||",
        "2.0.0 update|1.0.0|2.0.0|0||",
        "1.0.0 uninstall|||||",
        "2.0.0 install|||||0",
        "2.0.0 enable|||||0",
    ]
    assert (house.lib / f"{NAME}-2.0.0/mrseq").read_text() == "4"
    assert (house.lib / f"{NAME}-2.0.0/status/4.status").exists()
    assert house.last(NAME)["version"] == "2.0.0"


def test_an_update_without_install_and_a_downgrade(house: House) -> None:
    an_installed(house)
    a_package(house, "2.0.0", updateMode="UpdateWithoutInstall")
    house.want(handler(NAME, settings(4), version="2.0.0"))
    house.wait(lambda: folders(house) == [f"{NAME}-2.0.0"])
    house.wait_state(NAME, "success", sequence=4)
    house.wait(lambda: len(order(house)) == 4)

    house.want(handler(NAME, settings(4), version="1.0.0"))
    house.wait(lambda: folders(house) == [f"{NAME}-1.0.0"])
    house.wait_state(NAME, "success", sequence=4)
    house.wait(lambda: len(order(house)) == 9)

    assert [line.split("|")[0] for line in order(house)[:4]] == [
        "1.0.0 disable",
        "2.0.0 update",
        "1.0.0 uninstall",
        "2.0.0 enable",
    ]
    assert order(house)[4:] == [
        "2.0.0 disable|||||",
        "2.0.0 update|2.0.0|1.0.0|0||",
        "2.0.0 uninstall|||||",
        "1.0.0 install|||||0",
        "1.0.0 enable|||||0",
    ]


def test_a_disable_that_fails_stops_the_update_unless_the_new_manifest_goes_on(
    house: House,
) -> None:
    an_installed(house, fails={"disable": 3, "uninstall": 9})
    a_package(house, "2.0.0")
    house.want(handler(NAME, settings(5), version="2.0.0"))
    stopped = house.wait_state(NAME, "error", sequence=5)
    house.wait(lambda: house.last(NAME)["handler_code"] == 1008)
    text = house.last(NAME)["handler_message"]
    assert "Non-zero exit code: 3" in text and "ContinueOnUpdate: False" in text
    assert text.startswith("[ExtensionUpdateError]") and stopped["code"] == 1008
    assert [line.split("|")[0] for line in order(house)] == ["1.0.0 disable"]

    a_package(house, "3.0.0", continueOnUpdateFailure="true")
    house.want(handler(NAME, settings(6), version="3.0.0"))
    house.wait_state(NAME, "success", sequence=6)
    house.wait(lambda: folders(house) == [f"{NAME}-3.0.0"])

    assert order(house)[1:] == [
        "1.0.0 disable|||||",
        "3.0.0 update|1.0.0|3.0.0|3||",
        "1.0.0 uninstall|||||",
        "3.0.0 install|||||9",
        "3.0.0 enable|||||9",
    ]


def test_an_update_that_fails_leaves_the_old_version_and_back_to_it_works(house: House) -> None:
    an_installed(house)
    a_package(house, "2.0.0", fails={"update": 7})
    for sequence in (5, 6):
        house.want(handler(NAME, settings(sequence), version="2.0.0"))
        house.wait_state(NAME, "error", sequence=sequence)
        house.wait(lambda: house.last(NAME)["handler_code"] == 1008)
    state = (house.lib / f"{NAME}-2.0.0/config/HandlerState").read_text()

    house.want(handler(NAME, settings(7)))
    house.wait_state(NAME, "success", sequence=7)
    house.wait(lambda: folders(house) == [f"{NAME}-1.0.0"])

    assert state == "FailedUpgrade"
    assert order(house) == [
        "1.0.0 disable|||||",
        "2.0.0 update|1.0.0|2.0.0|0||",
        "2.0.0 update|1.0.0|2.0.0|NOT_RUN||",
        "1.0.0 enable|||||NOT_RUN",
    ]


@pytest.mark.parametrize("fails", [{}, {"disable": 3, "uninstall": 4}])
def test_an_uninstall_runs_its_commands_and_the_handler_vanishes(
    house: House, fails: dict[str, int]
) -> None:
    an_installed(house, fails=fails)

    house.want(handler(NAME, settings(4), state="uninstall"))
    house.wait(lambda: house.last(NAME)["handler_status"] == "Gone")

    assert [line.split("|")[0] for line in order(house)] == ["1.0.0 disable", "1.0.0 uninstall"]
    assert folders(house) == []


def test_a_handler_that_left_the_goal_state_is_removed_without_a_command(house: House) -> None:
    house.package(
        NAME, enable="setsid sleep 1000 >/dev/null 2>&1 & echo $! > ../pid\n" + a_status()
    )
    house.package("Contoso.Other")
    house.start()
    house.want(handler(NAME), handler("Contoso.Other"))
    house.wait_state(NAME, "success")
    house.wait_state("Contoso.Other", "success")
    pid = int((house.lib / "pid").read_text())
    before = house.calls(NAME)

    left = time.monotonic()
    house.want(handler("Contoso.Other"))
    house.wait(lambda: house.last(NAME)["handler_status"] == "Gone")
    gone_s = house.last(NAME)["at"] - left
    house.wait(lambda: folders(house) == ["Contoso.Other-1.0.0"])

    assert house.calls(NAME) == before
    assert gone_s < 30, "a status period or two, not the half minute it once took"
    house.wait(lambda: not os.path.exists(f"/proc/{pid}"))


def test_folders_of_a_predecessor_that_nobody_wants_are_removed_and_its_own_stay(
    house: House,
) -> None:
    for name in ("Contoso.Old-1.0", "WALinuxAgent-2.15.0.1"):
        folder = house.lib / name
        (folder / "config").mkdir(parents=True)
        (folder / "HandlerManifest.json").write_text("[]")
    house.package(NAME)
    house.start()

    house.want(handler(NAME))
    house.wait_state(NAME, "success")
    house.wait(lambda: folders(house) == [f"{NAME}-1.0.0"])

    assert (house.lib / "WALinuxAgent-2.15.0.1/HandlerManifest.json").exists()
