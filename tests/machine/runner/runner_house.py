"""A house for the runner: root prefix, packages made of shell scripts, goal states, and what was
reported.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness.supervising import Supervising
from waagent.distro import processes
from waagent.distro.cgroups import trees
from waagent.distro.operations import leftovers, records
from waagent.distro.operations.operation_tree import operation_tree

FABRIC = Path(__file__).with_name("fabric_of_files.py")
RUNNER = "extension_runner"
PATIENCE_S = 120.0
STATUS = {"status": "STATE", "code": 0, "formattedMessage": {"lang": "en-US", "message": "MESSAGE"}}
SUCCESS = json.dumps([{"version": 1.0, "timestampUTC": "t", "status": STATUS}])


def a_status(message: str = "done", state: str = "success") -> str:
    """Shell text that writes the status file of the operation's sequence number."""
    text = SUCCESS.replace("MESSAGE", message).replace("STATE", state)
    return (
        "cat > status/${ConfigExtensionName:+$ConfigExtensionName.}$ConfigSequenceNumber.status"
        f" <<'EOF'\n{text}\nEOF\n"
    )


class House:
    """One machine's worth of files, and the runner in it."""

    def __init__(self, root: Path, shown: Callable[[str], None]) -> None:
        self.root = root
        for folder in (
            "var/lib/waagent",
            "var/cache/waagent",
            "run/waagent",
            "etc/waagent/sandbox.d",
            "var/log/azure",
            "packages",
        ):
            (root / folder).mkdir(parents=True)
        self.configuration: dict[str, Any] = {"Extensions.GoalStatePeriod": 1}
        (root / "var/lib/waagent/provisioned").touch()
        self.lib = root / "var/lib/waagent"
        self._supervisor = Supervising(root, beat_s=0.5, shown=shown)
        self._supervisor.start("fabric_client", code=FABRIC, serves=True)
        self._goal: dict[str, Any] = {"summary": {}, "handlers": {}, "packages": {}}
        self._incarnation = 0

    # the handlers

    def package(
        self,
        name: str,
        *,
        version: str = "1.0.0",
        install: str = "",
        enable: str = "",
        disable: str = "",
        update: str = "",
        uninstall: str = "",
        data: bytes | None = None,
        **manifest: Any,
    ) -> None:
        """A handler whose commands are shell scripts that note each call in ROOT/calls."""
        path = self.root / "packages" / f"{name}-{version}"
        path.write_bytes(
            data
            if data is not None
            else self.archive(
                name, install, enable, disable, update=update, uninstall=uninstall, **manifest
            )
        )
        self._goal["packages"][f"{name}-{version}"] = str(path)

    def archive(
        self,
        name: str,
        install: str = "",
        enable: str = "",
        disable: str = "",
        *,
        update: str = "",
        uninstall: str = "",
        **manifest: Any,
    ) -> bytes:
        buffer = io.BytesIO()
        commands = {
            f"{word}Command": f"bin/{word}"
            for word in ("install", "enable", "disable", "update", "uninstall")
        }
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(
                "HandlerManifest.json",
                json.dumps([{"version": 1.0, "handlerManifest": {**commands, **manifest}}]),
            )
            for word, text in (
                ("install", install),
                ("enable", enable or a_status()),
                ("disable", disable),
                ("update", update),
                ("uninstall", uninstall),
            ):
                note = (
                    f"echo {name} {word} $$ ${{ConfigExtensionName:-}} $ConfigSequenceNumber >>"
                    f" {self.root}/calls\n"
                )
                archive.writestr(f"bin/{word}", f"#!/bin/sh\n{note}{text}")
        return buffer.getvalue()

    def calls(self, name: str = "") -> list[list[str]]:
        """`[handler, operation, pid, extension…, sequence]` for each command that ran."""
        path = self.root / "calls"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if not name or line[0] == name]

    def words(self, name: str) -> list[str]:
        return [line[1] for line in self.calls(name)]

    # the goal state

    def want(self, *handlers: dict[str, Any]) -> str:
        """Publish the next goal state."""
        self._incarnation += 1
        identity = f"incarnation_{self._incarnation}"
        self._goal["handlers"] = {
            handler["name"]: {**handler, "goal_state_id": identity} for handler in handlers
        }
        self._goal["summary"] = {
            "incarnation": str(self._incarnation),
            "container_id": "c",
            "instance_id": "i",
            "goal_state_id": identity,
            "endpoint": "168.63.129.16",
            "handlers": [handler["name"] for handler in handlers],
            "extensions_complete": True,
        }
        temporary = self.root / "goal.tmp"
        temporary.write_text(json.dumps(self._goal))
        temporary.replace(self.root / "goal.json")
        return identity

    def forget_goal_state(self) -> None:
        """fabric_client is there, and has no goal state yet."""
        self._supervisor.kill("fabric_client")
        (self.root / "goal.json").unlink()
        self._supervisor.start("fabric_client", code=FABRIC, serves=True)

    # the runner

    def start(self) -> None:
        environment = {
            "NOTIFY_SOCKET": "/leak",
            "LD_LIBRARY_PATH": "",
            "http_proxy": "http://proxy",
        }
        self._supervisor.start(RUNNER, configuration=self.configuration, environment=environment)

    def kill(self) -> None:
        """kill -9 of the runner."""
        self._supervisor.kill(RUNNER)

    def runner_pid(self) -> int:
        return self._supervisor.processes[RUNNER].pid

    def restart_fabric(self) -> None:
        """kill -9 of fabric_client; its successor knows nothing."""
        self._supervisor.kill("fabric_client")
        self._supervisor.start("fabric_client", code=FABRIC, serves=True)

    def log(self) -> str:
        return self._supervisor.log_text()

    def doing(self) -> str:
        beats = self._supervisor.said(RUNNER, "heartbeat")
        return str(beats[-1]["doing"]) if beats else ""

    # what was reported

    def reports(self, name: str, extension: str = "") -> list[dict[str, Any]]:
        path = self.root / "reports.jsonl"
        lines = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [
            line for line in lines if line["handler"] == name and line["extension"] == extension
        ]

    def last(self, name: str, extension: str = "") -> dict[str, Any]:
        reports = self.reports(name, extension)
        return reports[-1] if reports else {}

    def status(self, name: str, extension: str = "") -> dict[str, Any]:
        text = self.last(name, extension).get("status")
        return json.loads(text) if text else {}

    def wait(self, claim: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        until = time.monotonic() + patience_s
        while not claim():
            if time.monotonic() > until:
                reported = (
                    (self.root / "reports.jsonl").read_text()[-3000:]
                    if (self.root / "reports.jsonl").exists()
                    else ""
                )
                raise AssertionError(
                    f"not within {patience_s} s; calls {self.calls()}\nreported {reported}\nlog"
                    f" {self.log()[-4000:]}"
                )
            runner = self._supervisor.processes.get(RUNNER)
            assert runner is None or runner.poll() is None, self.log()[-4000:]
            time.sleep(0.03)

    def wait_state(
        self,
        name: str,
        state: str,
        *,
        sequence: int = 0,
        extension: str = "",
        patience_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        """The extension's status once it is ``state`` for ``sequence``."""
        self.wait(lambda: self.is_settled(name, extension, sequence, state), patience_s)
        return self.status(name, extension)

    def is_settled(self, name: str, extension: str, sequence: int, state: str) -> bool:
        """The state is reported, and for a success the end of its command too."""
        last = self.last(name, extension)
        is_ended = last.get("handler_status") == "Ready" or state != "success"
        return (
            is_ended
            and last.get("sequence") == sequence
            and self.status(name, extension).get("status") == state
        )

    def operations(self) -> list[Path]:
        return [
            folder
            for folder in (self.lib / "operations").iterdir()
            if re.fullmatch("[0-9a-f]{32}", folder.name)
        ]

    def folder_of(self, name: str, operation: str) -> Path:
        """The records of the newest ``operation`` of a handler."""
        plans = {
            folder: json.loads((folder / "planned.json").read_text())
            for folder in self.operations()
        }
        mine = [
            folder
            for folder, plan in plans.items()
            if (plan["handler"], plan["operation"]) == (name, operation)
        ]
        return max(mine, key=lambda folder: plans[folder]["at"])

    def view_of(self, name: str) -> dict[str, Any]:
        """The first row of `waagent-ps extensions` about a handler."""
        path = self.root / "run/waagent/operations"
        view = json.loads(path.read_text()) if path.exists() else {"operations": []}
        return next((row for row in view["operations"] if row["handler"] == name), {})

    def shims(self) -> dict[str, int]:
        """Operation -> pid of its shim, of those that run."""
        seen = {folder.name: records.observe(folder) for folder in self.operations()}
        return {
            name: one.started["pid"]
            for name, one in seen.items()
            if one.state == "running" and "pid" in one.started
        }

    def close(self) -> None:
        self._supervisor.__exit__()
        for folder in self.operations() if (self.lib / "operations").is_dir() else ():
            if records.observe(folder).state in ("running", "lost"):
                for pid in self.shims().values():
                    if processes.is_alive(pid):
                        os.kill(pid, signal.SIGKILL)
            leftovers.kill_leftovers(folder)
        tree = operation_tree(name=f"{trees.tree_name(str(self.root))}-operations")
        tree.empty(deadline_s=5)
        tree.remove()


def handler(
    name: str,
    *extensions: dict[str, Any],
    version: str = "1.0.0",
    state: str = "enabled",
    **more: Any,
) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "state": state,
        "extensions": list(extensions) or [settings()],
        **more,
    }


def settings(
    sequence: int = 0, *, name: str = "", state: str = "enabled", **public: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "sequence": sequence,
        "state": state,
        "public_settings": json.dumps(public),
    }
