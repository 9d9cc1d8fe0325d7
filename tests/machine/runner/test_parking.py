"""One bad operation never ends its runner: what goes wrong in one lane parks that lane, says so, and
nobody else notices.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tests.machine.runner.runner_house import House, handler

BAD = "Contoso.Bad"
GOOD = "Contoso.Good"
LATER = "Contoso.Later"

NONSENSE: dict[str, Any] = {
    "schema": 1,
    "name": BAD,
    "versions": {},
    "extensions": [],
    "handler": None,
    "outcomes": [
        {
            "id": "0" * 32,
            "version": "1.0.0",
            "operation": "enable",
            "extension": "earlier",
            "sequence": 0,
            "goal_state_id": "incarnation_0",
            "boot_id": "another",
            "code": 0,
            "message": "",
            "started_at": 0.0,
            "started_wall_ns": 0,
            "elapsed_s": ["soon"],
            "limit_s": 300.0,
        }
    ],
}
"""A journal with a list where a number belongs: whoever shows that outcome raises TypeError."""


def test_what_a_lane_raises_parks_it_alone_until_the_next_goal_state(house: House) -> None:
    journal = house.lib / "operations/handlers" / f"{BAD.lower()}.json"
    journal.parent.mkdir(parents=True)
    journal.write_text(json.dumps(NONSENSE))
    house.package(BAD)
    house.package(GOOD)
    house.start()
    runner = house.runner_pid()

    house.want(handler(BAD), handler(GOOD))

    status = house.wait_state(BAD, "error")
    house.wait_state(GOOD, "success")
    assert status["code"] == -1
    assert "TypeError" in status["formattedMessage"]["message"]
    assert "next goal state" in status["formattedMessage"]["message"]
    shown = house.view_of(BAD)
    assert shown["state"] == "failed" and "TypeError" in shown["message"]
    journal.unlink()
    house.want(handler(BAD), handler(GOOD))
    house.wait_state(BAD, "success")
    assert house.runner_pid() == runner


def test_an_exit_record_of_nonsense_is_an_end_that_nobody_knows(house: House) -> None:
    house.package(BAD, enable="sleep 300")
    house.start()
    house.want(handler(BAD))
    house.wait(lambda: "enable" in house.words(BAD))
    folder = house.folder_of(BAD, "enable")
    house.kill()
    (folder / "exit.json").write_text(json.dumps({"exit_code": {}, "oom_kills": "many"}))

    house.start()

    status = house.wait_state(BAD, "error")
    assert status["code"] == -1
    assert "how the command ended is not known" in status["formattedMessage"]["message"]


def test_what_ended_a_runner_is_looked_at_last_and_after_two_not_at_all(house: House) -> None:
    house.package(BAD, enable="sleep 60")
    house.package(GOOD)
    house.package(LATER)
    house.start()
    house.want(handler(BAD))
    house.wait(lambda: "enable" in house.words(BAD))
    output = house.folder_of(BAD, "enable") / "output"
    house.kill()
    output.unlink()
    os.mkfifo(output)  # whoever reads it waits for ever

    house.start()
    _wait_until_looking(house, BAD)
    house.kill()
    house.want(handler(BAD), handler(GOOD))
    house.start()
    house.wait_state(GOOD, "success")  # although the runner ends at the other one again
    _wait_until_looking(house, BAD)
    house.kill()
    house.start()
    status = house.wait_state(BAD, "error")

    assert "ended 2 times" in status["formattedMessage"]["message"]
    house.want(handler(BAD), handler(GOOD), handler(LATER))
    _wait_until_looking(house, BAD)
    house.kill()
    output.unlink()
    output.touch()
    house.start()
    house.wait_state(LATER, "success")
    house.wait(lambda: house.words(BAD) == ["install", "enable"])


def _wait_until_looking(house: House, name: str) -> None:
    """The runner looks at ``name``, and goes on doing so: it hangs."""
    path = Path(house.root / "run/waagent/extension_runner.looking")
    since = time.monotonic()
    until = since + 60
    while time.monotonic() < until:
        if path.exists() and path.read_bytes().rstrip(b"\0").decode() != name.lower():
            since = time.monotonic()
        if time.monotonic() - since > 1.0:
            return
        time.sleep(0.02)
    raise AssertionError(f"the runner does not look at {name}\n{house.log()[-3000:]}")
