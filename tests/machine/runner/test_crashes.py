"""The runner and the shims killed at the wrong moment: what ran once ran once, and everybody ends
terminal.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.machine.runner.runner_house import House, a_status, handler, settings
from waagent.distro import processes

SLOW = "Contoso.Slow"
GOOD = "Contoso.Good"
HANGS = "Contoso.Hangs"


def pids_in(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def test_an_enable_that_outlives_several_runners_runs_once_and_the_same_process_ends_it(
    house: House,
) -> None:
    house.package(SLOW, enable=f"sleep 5; echo $$ > ended; {a_status()}")
    house.start()
    house.want(handler(SLOW))
    house.wait(lambda: "enable" in house.words(SLOW))

    for _ in range(4):
        house.kill()
        house.start()
        time.sleep(0.7)

    house.wait_state(SLOW, "success")
    assert house.words(SLOW) == ["install", "enable"]
    assert pids_in(house.lib / f"{SLOW}-1.0.0/ended") == [int(house.calls(SLOW)[1][2])]


def test_an_adopted_operation_is_shown_and_reported_at_once(house: House) -> None:
    house.package(SLOW, enable=f"sleep 8; {a_status()}")
    house.start()
    house.want(handler(SLOW))
    house.wait(lambda: "enable" in house.words(SLOW))
    house.kill()
    (house.root / "run/waagent/operations").unlink()
    house.forget_goal_state()
    (house.root / "reports.jsonl").unlink()

    house.start()

    house.wait(lambda: house.view_of(SLOW).get("state") == "running")
    house.wait(lambda: house.status(SLOW).get("status") == "transitioning")
    assert house.view_of(SLOW)["operation"] == "enable"
    assert house.words(SLOW) == ["install", "enable"]


def test_a_runner_killed_at_any_moment_runs_nothing_twice(house: House) -> None:
    names = [f"Contoso.H{number}" for number in range(4)]
    for name in names:
        house.package(name, install="sleep 0.2", enable=f"sleep 0.3; {a_status()}")
    house.want(*[handler(name) for name in names])

    for patience_s in (0.15, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7):
        house.start()
        time.sleep(patience_s)
        house.kill()
    house.start()

    for name in names:
        house.wait_state(name, "success")
        assert house.words(name) == ["install", "enable"]


def test_an_exit_7_during_the_runners_absence_is_told(house: House) -> None:
    house.package(SLOW, enable="sleep 1; exit 7")
    house.start()
    house.want(handler(SLOW))
    house.wait(lambda: "enable" in house.words(SLOW))

    house.kill()
    time.sleep(2)
    house.start()

    status = house.wait_state(SLOW, "error")
    assert (
        status["code"] == 1009
        and "Non-zero exit code: 7, " in status["formattedMessage"]["message"]
    )
    assert house.words(SLOW) == ["install", "enable"]


def test_a_killed_shim_ends_in_a_terminal_status_and_its_command_is_ended(house: House) -> None:
    house.package(SLOW, enable="echo $$ > ../pid; setsid sleep 300 & sleep 300")
    house.start()
    house.want(handler(SLOW))
    house.wait(lambda: pids_in(house.lib / "pid") and house.shims())

    for pid in house.shims().values():
        os.kill(pid, signal.SIGKILL)

    status = house.wait_state(SLOW, "error")
    assert status["code"] == -1 and "shim was killed" in status["formattedMessage"]["message"]
    assert not processes.is_alive(pids_in(house.lib / "pid")[0])
    house.kill()
    house.start()
    house.wait(lambda: house.log().count("goal state taken up") == 2)
    assert house.words(SLOW) == ["install", "enable"]


def test_a_handler_that_hangs_costs_only_itself(house: House) -> None:
    (house.root / f"etc/waagent/sandbox.d/{HANGS}.conf").write_text("Timeout.Enable=10\n")
    child = "sh -c 'trap \"\" TERM INT HUP; echo $$ >> ../pids; while :; do sleep 1; done'"
    house.package(
        HANGS,
        enable=(
            f"trap '' TERM; echo $$ >> ../pids; setsid {child} & setsid setsid {child} & while :;"
            " do sleep 1; done"
        ),
    )
    house.package(SLOW, enable="sleep 300")
    house.package(GOOD)
    house.start()

    house.want(handler(HANGS), handler(SLOW), handler(GOOD))

    house.wait_state(GOOD, "success")
    assert house.status(HANGS)["status"] == "transitioning"
    house.wait(lambda: len(house.shims()) == 2)
    slow = next(pid for name, pid in house.shims().items() if operation_of(house, name) == SLOW)
    os.kill(slow, signal.SIGKILL)
    status = house.wait_state(HANGS, "error")
    assert status["code"] == 1011 and "Timeout(10): " in status["formattedMessage"]["message"]
    house.wait(lambda: not any(processes.is_alive(pid) for pid in pids_in(house.lib / "pids")))
    assert len(pids_in(house.lib / "pids")) == 3
    assert house.wait_state(SLOW, "error")["code"] == -1


def operation_of(house: House, identity: str) -> str:
    import json

    return str(
        json.loads((house.lib / "operations" / identity / "planned.json").read_text())["handler"]
    )


def test_a_background_process_of_a_successful_enable_lives_on(house: House) -> None:
    house.package(SLOW, enable=f"(sleep 60 & echo $! > ../pid); {a_status()}")
    house.start()
    house.want(handler(SLOW))

    house.wait_state(SLOW, "success")

    (pid,) = pids_in(house.lib / "pid")
    assert processes.is_alive(pid)
    house.want(handler(SLOW, settings(1)))
    house.wait_state(SLOW, "success", sequence=1)
    assert processes.is_alive(pid)


def test_a_truncated_journal_is_kept_aside_and_the_folder_says_what_is_installed(
    house: House,
) -> None:
    house.package(GOOD)
    house.start()
    house.want(handler(GOOD))
    house.wait_state(GOOD, "success")
    house.kill()
    journal = house.lib / f"operations/handlers/{GOOD.lower()}.json"
    journal.write_text(journal.read_text()[:40])

    house.start()
    house.want(handler(GOOD, settings(1)))

    house.wait_state(GOOD, "success", sequence=1)
    assert (
        house.words(GOOD).count("install") == 1
        and journal.with_name(journal.name + ".corrupt").exists()
    )


def test_a_handler_that_the_predecessor_installed_is_enabled_not_installed(house: House) -> None:
    import io
    import zipfile

    folder = house.lib / f"{GOOD}-1.0.0"
    zipfile.ZipFile(io.BytesIO(house.archive(GOOD))).extractall(folder)
    for script in (folder / "bin").iterdir():
        script.chmod(0o755)
    (folder / "config").mkdir()
    (folder / "status").mkdir()
    (folder / "config/HandlerState").write_text("Enabled")
    house.start()

    house.want(handler(GOOD, version="1.0.0.0"))

    house.wait_state(GOOD, "success")
    assert house.words(GOOD) == ["enable"] and not (house.lib / f"{GOOD}-1.0.0.0").exists()


def test_a_new_fabric_client_is_told_everything_again(house: House) -> None:
    house.package(GOOD)
    house.start()
    house.want(handler(GOOD))
    house.wait_state(GOOD, "success")
    (house.root / "reports.jsonl").unlink()

    house.restart_fabric()

    house.wait_state(GOOD, "success")
    assert house.words(GOOD) == ["install", "enable"]
