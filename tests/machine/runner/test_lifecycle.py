"""Handlers that are real processes: installed, enabled, given new settings, disabled; what goes
wrong is said.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.machine.runner.runner_house import House, a_status, handler, settings

NAME = "Contoso.Sample"
BAD = "Contoso.Bad"


def test_a_handler_is_installed_enabled_and_its_status_reported(house: House) -> None:
    house.package(NAME, install="test -f config/0.settings || exit 9", enable=a_status("hello"))
    house.start()

    house.want(handler(NAME, settings(name_of_user="bob")))

    status = house.wait_state(NAME, "success")
    folder = house.lib / f"{NAME}-1.0.0"
    assert status["formattedMessage"]["message"] == "hello" and status["name"] == NAME
    assert house.words(NAME) == ["install", "enable"]
    assert (house.last(NAME)["handler_status"], house.last(NAME)["handler_message"]) == (
        "Ready",
        "Plugin enabled",
    )
    assert json.loads((folder / "config/0.settings").read_text())["runtimeSettings"][0][
        "handlerSettings"
    ] == {
        "publicSettings": {"name_of_user": "bob"},
        "protectedSettings": None,
        "protectedSettingsCertThumbprint": None,
    }
    assert (folder / "config/HandlerState").read_text() == "Enabled"
    assert json.loads((folder / "config/HandlerStatus").read_text())["message"] == "Plugin enabled"
    assert [
        oct((folder / name).stat().st_mode & 0o777)
        for name in ("config", "status", "config/0.settings")
    ] == [
        "0o700",
        "0o700",
        "0o600",
    ]
    assert "bin/enable" in (house.root / f"var/log/azure/{NAME}/CommandExecution.log").read_text()


def test_new_settings_enable_again_and_disable_disables(house: House) -> None:
    house.package(NAME)
    house.start()
    house.want(handler(NAME, settings(0)))
    house.wait_state(NAME, "success")

    house.want(handler(NAME, settings(1, again=True)))
    house.wait_state(NAME, "success", sequence=1)
    house.want(handler(NAME, settings(1), state="disabled"))
    house.wait(lambda: house.last(NAME)["handler_message"] == "Plugin disabled")
    house.want(handler(NAME, settings(2)))
    house.wait_state(NAME, "success", sequence=2)

    assert house.words(NAME) == ["install", "enable", "enable", "disable", "enable"]
    assert [line[-1] for line in house.calls(NAME)] == ["0", "0", "1", "1", "2"]


def test_a_restart_in_the_same_boot_runs_nothing_again_and_a_new_goal_state_enables(
    house: House,
) -> None:
    house.package(NAME)
    house.start()
    house.want(handler(NAME))
    house.wait_state(NAME, "success")

    house.kill()
    house.start()
    house.wait(
        lambda: (
            house.log().count("goal state taken up") == 2
            and house.is_settled(NAME, "", 0, "success")
        )
    )
    assert house.words(NAME) == ["install", "enable"]
    house.want(handler(NAME))
    house.wait(lambda: house.words(NAME) == ["install", "enable", "enable"])


def test_a_handler_without_settings_gets_an_empty_file_and_reports_itself(house: House) -> None:
    house.package(NAME, enable="true")
    house.start()

    house.want({**handler(NAME), "extensions": []})

    house.wait(lambda: house.last(NAME).get("handler_status") == "Ready")
    assert (house.last(NAME)["sequence"], house.last(NAME)["status"]) == (None, None)
    assert (house.lib / f"{NAME}-1.0.0/config/0.settings").read_bytes() == b""


def test_several_extensions_of_one_handler_live_side_by_side(house: House) -> None:
    house.package(NAME, supportsMultipleExtensions=True)
    house.start()
    house.want(handler(NAME, settings(name="one"), settings(3, name="two"), multi_config=True))
    house.wait_state(NAME, "success", extension="one")
    house.wait_state(NAME, "success", sequence=3, extension="two")

    house.want(
        handler(
            NAME, settings(name="one"), settings(3, name="two", state="disabled"), multi_config=True
        )
    )
    house.wait(lambda: house.last(NAME, "two").get("handler_status") == "Gone")

    house.wait(lambda: len(house.calls(NAME)) == 5)
    assert [(line[1], line[3]) for line in house.calls(NAME)] == [
        ("install", "one"),
        ("enable", "one"),
        ("enable", "two"),
        ("disable", "two"),
        ("enable", "one"),
    ]
    folder = house.lib / f"{NAME}-1.0.0"
    assert (folder / "config/one.0.settings").exists() and not (
        folder / "config/two.3.settings"
    ).exists()
    assert (
        not (folder / "status/two.3.status").exists()
        and (folder / "config/HandlerState").read_text() == "Enabled"
    )


def test_several_extensions_need_a_manifest_that_says_so(house: House) -> None:
    house.package(NAME)
    house.start()

    house.want(handler(NAME, settings(name="one"), multi_config=True))

    status = house.wait_state(NAME, "error", extension="one")
    assert (
        status["code"] == -1
        and "supportsMultipleExtensions" in status["formattedMessage"]["message"]
        and house.calls() == []
    )


@pytest.mark.parametrize(
    ("scripts", "code", "words"),
    [
        (
            {"enable": "echo out; echo oops >&2; exit 7"},
            1009,
            [
                "[ExtensionOperationError] Non-zero exit code: 7, ",
                "[stdout]\nout",
                "[stderr]\noops",
            ],
        ),
        ({"install": "exit 3"}, 1007, ["Non-zero exit code: 3, "]),
        ({"enable": "kill -TERM $PPID; sleep 1"}, 1009, ["Terminated by signal 15 (SIGTERM)"]),
        ({"enable": "exec /nowhere/python"}, 1009, ["Non-zero exit code: 127"]),
        ({"enable": "printf 'a\\000b\\033[31m\\377\\n'; exit 1"}, 1009, ["a\\x00b\\x1b[31m\\xff"]),
        (
            {"enable": "echo 'https://x/y?sv=1&sig=SECRETSECRET password=SECRETSECRET'; exit 1"},
            1009,
            ["https://x/y?<redacted>"],
        ),
        (
            {"enable": "head -c 3000000 /dev/zero | tr '\\0' x; echo END; exit 1"},
            1009,
            ["bytes dropped", "xEND"],
        ),
        ({"manifest": {"enableCommand": ""}}, 1009, ["no enableCommand"]),
        ({"manifest": {"enableCommand": "python3 x.py"}}, 1009, ["Non-zero exit code: 127"]),
    ],
)
def test_a_command_that_fails_is_told_with_code_and_output(
    house: House, scripts: dict[str, Any], code: int, words: list[str]
) -> None:
    more = dict(scripts)
    house.package(NAME, **more.pop("manifest", {}), **more)
    house.start()

    house.want(handler(NAME))

    message = house.wait_state(NAME, "error")["formattedMessage"]["message"]
    assert house.status(NAME)["code"] == code and all(word in message for word in words), message[
        -800:
    ]
    assert (house.last(NAME)["handler_status"], house.last(NAME)["handler_code"]) == (
        "NotReady",
        code,
    )
    assert len(message) <= 4096 and "SECRET" not in (house.root / "reports.jsonl").read_text()
    assert (
        "SECRETSECRET"
        not in (house.root / f"var/log/azure/{NAME}/CommandExecution.log").read_text()
    )


def test_after_a_failed_install_the_next_goal_state_installs_again(house: House) -> None:
    house.package(NAME, install="test -e ../again || { touch ../again; exit 3; }")
    house.start()
    house.want(handler(NAME))
    house.wait_state(NAME, "error")

    house.want(handler(NAME))

    house.wait_state(NAME, "success")
    assert house.words(NAME) == ["install", "install", "enable"]


def test_the_handlers_own_terminal_status_wins_over_its_exit_code(house: House) -> None:
    house.package(NAME, enable=a_status("own words", "error") + "exit 7")
    house.start()

    house.want(handler(NAME))

    house.wait(lambda: house.last(NAME).get("handler_code") == 1009)
    assert house.status(NAME)["formattedMessage"]["message"] == "own words"


def test_a_command_sees_the_documented_environment_and_nothing_else(house: House) -> None:
    house.package(
        NAME,
        enable=(
            "env | cut -d= -f1 | sort > names; env > values; umask > umask; ls -l /proc/self/fd |"
            " wc -l > fds\n"
        )
        + a_status(),
    )
    house.start()

    house.want(handler(NAME))

    house.wait_state(NAME, "success")
    folder = house.lib / f"{NAME}-1.0.0"
    # where this machine has them
    handed_on = {"HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "LC_ALL"}
    assert set((folder / "names").read_text().split()) - {
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    } - handed_on == {
        "AZURE_GUEST_AGENT_EXTENSION_PATH",
        "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES",
        "AZURE_GUEST_AGENT_EXTENSION_VERSION",
        "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE",
        "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS",
        "ConfigSequenceNumber",
        "HOME",
        "LANG",
        "LOGNAME",
        "PATH",
        "SHELL",
        "TERM",
        "USER",
        "http_proxy",
    }
    values = (folder / "values").read_text()
    assert (
        f"AZURE_GUEST_AGENT_EXTENSION_PATH={folder}\n" in values
        and "UNINSTALL_CMD_EXIT_CODE=NOT_RUN" in values
    )
    assert (folder / "umask").read_text().strip() == "0022"


def test_a_new_goal_state_waits_for_the_running_command_and_only_the_newest_counts(
    house: House,
) -> None:
    house.package(NAME, enable=f"sleep 2; {a_status()}")
    house.start()
    house.want(handler(NAME, settings(1)))
    house.wait(lambda: "enable" in house.words(NAME))

    house.want(handler(NAME, settings(2)))
    house.want(handler(NAME, settings(3)))

    house.wait_state(NAME, "success", sequence=3)
    assert [(line[1], line[-1]) for line in house.calls(NAME)] == [
        ("install", "1"),
        ("enable", "1"),
        ("enable", "3"),
    ]


def test_nothing_starts_before_the_marker(house: House) -> None:
    (house.lib / "provisioned").unlink()
    house.package(NAME)
    house.want(handler(NAME))
    house.start()
    house.wait(lambda: "provisioner" in house.doing())
    assert not (house.root / "reports.jsonl").exists()

    (house.lib / "provisioned").touch()

    house.wait_state(NAME, "success")


def test_switched_off_extensions_say_so(house: House) -> None:
    house.configuration = {"Extensions.Enabled": False}
    house.package(NAME)
    house.start()

    house.want(handler(NAME))

    status = house.wait_state(NAME, "error")
    assert (
        status["code"] == 1009
        and "Extensions.Enabled=y" in status["formattedMessage"]["message"]
        and house.calls() == []
    )


def test_a_log_folder_that_is_a_file_stops_nobody(house: House) -> None:
    (house.root / f"var/log/azure/{NAME}").write_text("in the way")
    house.package(NAME)
    house.start()

    house.want(handler(NAME))

    house.wait_state(NAME, "success")


def test_a_profile_that_is_not_understood_is_never_run_wider(house: House) -> None:
    (house.root / f"etc/waagent/sandbox.d/{NAME}.conf").write_text("Profile=stricter\n")
    house.package(NAME)
    house.start()

    house.want(handler(NAME))

    assert (
        "Profile=stricter" in house.wait_state(NAME, "error")["formattedMessage"]["message"]
        and house.calls() == []
    )


def test_the_operations_view_says_what_runs_and_what_failed(house: House) -> None:
    house.package(NAME, enable="sleep 3; " + a_status())
    house.package(BAD, enable="exit 7")
    house.start()

    house.want(handler(NAME), handler(BAD))

    def rows() -> dict[str, dict[str, Any]]:
        path = house.root / "run/waagent/operations"
        listed = json.loads(path.read_text())["operations"] if path.exists() else []
        return {row["handler"]: row for row in reversed(listed)}  # the newest comes first

    house.wait(
        lambda: (
            {name: (row["state"], row["operation"]) for name, row in rows().items()}
            == {NAME: ("running", "enable"), BAD: ("failed", "enable")}
        )
    )
    assert (rows()[BAD]["exit_code"], rows()[BAD]["reported"], rows()[NAME]["limit_s"]) == (
        7,
        "error",
        300,
    )
    assert oct((house.root / "run/waagent/operations").stat().st_mode & 0o777) == "0o644"
    house.wait(lambda: rows()[NAME]["pid"])
    place = rows()[NAME]["cgroup"]
    assert (
        place is None or str(rows()[NAME]["pid"]) in Path(place, "cgroup.procs").read_text().split()
    )


def test_many_handlers_run_at_the_same_time(house: House) -> None:
    names = [f"Contoso.H{number}" for number in range(6)]
    for name in names:
        house.package(
            name,
            enable=(
                "touch ../here.$$; while [ $(ls ../here.* | wc -l) -lt 6 ]; do sleep 0.1; done;"
                f" {a_status()}"
            ),
        )
    house.start()

    house.want(*[handler(name) for name in names])

    for name in names:
        house.wait_state(name, "success")  # each waits for all the others to have begun


def test_an_extension_waits_for_what_it_names_and_fails_with_it(house: House) -> None:
    for name in ("Contoso.First", "Contoso.Second", BAD, "Contoso.Skipped", NAME):
        house.package(name, enable="sleep 1; exit 3" if name == BAD else f"sleep 1; {a_status()}")
    house.start()

    def after(name: str) -> dict[str, Any]:
        return {**settings(), "dependency_level": 1, "depends_on": [{"handler": name}]}

    house.want(
        handler("Contoso.Second", after("contoso.first")),
        handler("Contoso.Skipped", after(BAD)),
        handler("Contoso.First"),
        handler(BAD),
        handler(NAME, after("Contoso.Nobody")),
    )

    house.wait_state("Contoso.Second", "success")
    status = house.wait_state("Contoso.Skipped", "error")
    assert status["code"] == -1 and BAD.lower() in status["formattedMessage"]["message"]
    assert "not in the goal state" in house.wait_state(NAME, "error")["formattedMessage"]["message"]
    order = [line[0] for line in house.calls() if line[1] == "enable"]
    assert (
        order.index("Contoso.First") < order.index("Contoso.Second")
        and house.calls("Contoso.Skipped") == house.calls(NAME) == []
    )
