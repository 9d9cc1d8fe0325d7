"""What a handler finds around it, and what one handler's nonsense costs the others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.machine.runner.runner_house import House, a_status, handler, settings

NAME = "Contoso.Sample"
OTHER = "Contoso.Other"


def facts_of(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def test_what_a_handler_leaves_running_is_treated_like_any_daemon(house: House) -> None:
    house.package(
        NAME, enable=f"setsid sleep 300 >/dev/null 2>&1 & echo $! > {house.root}/pid\n{a_status()}"
    )
    house.start()
    house.want(handler(NAME))
    house.wait_state(NAME, "success")
    pid = int((house.root / "pid").read_text())

    limits = Path(f"/proc/{pid}/limits").read_text()
    files = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "0"
    assert int(files.split()[3]) >= 1024 and int(files.split()[4]) > 512
    for name, value in ceilings_of(pid).items():
        assert (
            value in {"pids.max": ("max",), "cpu.weight": ("100",), "cpu.shares": ("1024",)}[name]
        )


def ceilings_of(pid: int) -> dict[str, str]:
    """Of the cgroups that ``pid`` is in, as far as this machine has them."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for base in (
            "/sys/fs/cgroup",
            *(f"/sys/fs/cgroup/{one}" for one in controllers.split(",")),
        ):
            for name in ("pids.max", "cpu.weight", "cpu.shares"):
                file = Path(base + path) / name
                if file.exists():
                    found[name] = file.read_text().strip()
    return found


def test_no_locale_is_set_for_a_handler_and_no_feature_promised_that_is_not_there(
    house: House,
) -> None:
    house.package(NAME, enable=f"env > {house.root}/env\n{a_status()}")
    house.start()
    house.want(handler(NAME))
    house.wait_state(NAME, "success")

    seen = facts_of(house.root / "env")
    assert not {"LC_ALL", "LC_CTYPE", "WAAGENT_NOFILE"} & set(seen)
    assert seen["http_proxy"] == "http://proxy"
    assert json.loads(seen["AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES"]) == []


def test_log_folders_are_for_everybody_to_enter_whatever_a_handler_made_of_them(
    house: House,
) -> None:
    log = house.root / "var/log/azure"
    log.chmod(0o700)
    house.package(NAME, enable=a_status())
    house.start()
    house.want(handler(NAME))
    house.wait_state(NAME, "success")

    modes = [oct(os.stat(path).st_mode & 0o777) for path in (log, log / NAME)]
    assert modes == ["0o755", "0o755"]


@pytest.mark.parametrize("letters", ["\u0416", "\U0001f600", "a", "\\u0416", "\\ud800"])
def test_a_large_status_in_any_alphabet_reaches_the_platform(house: House, letters: str) -> None:
    parts = [
        {
            "name": "n",
            "status": "success",
            "code": 0,
            "formattedMessage": {"lang": "ru-RU", "message": "TEXT" * 50},
        }
        for _ in range(500)
    ]
    text = json.dumps(
        [{"version": 1.0, "timestampUTC": "t", "status": a_document(substatus=parts)}]
    ).replace("TEXT", letters)
    (house.root / "status").write_text(text)
    house.package(NAME, enable=f"cp {house.root}/status status/0.status")
    house.package(OTHER)
    house.start()
    house.want(handler(NAME), handler(OTHER))

    status = house.wait_state(NAME, "success")
    house.wait_state(OTHER, "success")
    assert status["substatus"][0]["formattedMessage"]["lang"] == "en-US"
    assert len(json.dumps(status, ensure_ascii=False).encode("utf-8", "replace")) <= 256 * 1024


def a_document(**more: Any) -> dict[str, Any]:
    return {
        "operation": None,
        "status": "success",
        "code": 0,
        "formattedMessage": {"lang": "en-US", "message": "m"},
        **more,
    }


def test_a_status_keeps_its_null_operation_and_is_named_after_its_extension(house: House) -> None:
    text = json.dumps([{"version": 1.0, "timestampUTC": "t", "status": a_document()}])
    (house.root / "status").write_text(text)
    house.package(
        NAME, enable=f"cp {house.root}/status status/one.0.status", supportsMultipleExtensions=True
    )
    house.start()
    house.want(handler(NAME, settings(name="one"), multi_config=True))

    status = house.wait_state(NAME, "success", extension="one")
    assert status["name"] == "one" and status["operation"] is None


def test_a_status_that_a_background_process_writes_late_is_seen_within_2_s(house: House) -> None:
    house.configuration["Extensions.GoalStatePeriod"] = 30
    later = a_status("late").replace("status/", "$PWD/status/")
    house.package(
        NAME,
        enable=(
            f"{a_status(state='transitioning')}\n"
            f"(while ! test -e {house.root}/go; do sleep 0.1; done\n{later}\n"
            f"date +%s.%N > {house.root}/written; sleep 300) >/dev/null 2>&1 &\n"
        ),
    )
    house.start()
    house.want(handler(NAME))
    house.wait_state(NAME, "transitioning")
    (house.root / "go").touch()

    house.wait_state(NAME, "success", patience_s=8)


def test_settings_of_512_kib_public_and_protected_reach_the_handler(house: House) -> None:
    house.package(NAME)
    (house.lib / "AA.prv").touch()
    house.start()
    large = {
        **settings(),
        "public_settings": json.dumps({"script": "\u0416" * 255_000}, ensure_ascii=False),
        "protected_settings": "M" * 512 * 1024,
        "certificate_thumbprint": "AA",
    }
    house.want(handler(NAME, large))
    house.wait_state(NAME, "success", patience_s=20)

    text = (house.lib / f"{NAME}-1.0.0/config/0.settings").read_text()
    (one,) = json.loads(text)["runtimeSettings"]
    assert one["handlerSettings"]["publicSettings"] == {"script": "\u0416" * 255_000}
    assert one["handlerSettings"]["protectedSettings"] == "M" * 512 * 1024
