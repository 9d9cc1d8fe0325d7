"""`waagent-lab extension run` and `lint`, used as a new author would from docs/extension-authors.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from waagent.lab.handlers import packages

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/extension-authors.md"


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and mounts")


def lab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "waagent.lab.commands", "extension", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def result(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = lab(folder, "run", *words, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def events(document: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in document["events"] if event["event"] == kind]


def a_handler(folder: Path, name: str, enable: str, **more: Any) -> Path:
    path = folder / f"{name}.zip"
    path.write_bytes(packages.handler_zip({"enable": enable}, **more))
    return path


def test_the_page_is_all_that_an_author_needs(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    subprocess.run(["sh", "-e", "-c", blocks[0]], cwd=tmp_path, check=True, timeout=30)
    before = saved_paths()

    for command in blocks[1].strip().splitlines():
        words = command.removeprefix("sudo ").removeprefix("waagent-lab extension ").split()
        done = lab(tmp_path, *words)

        assert done.returncode == 0, done.stdout + done.stderr
    assert 'status    success, code 0: "greeted"' in done.stdout
    assert "changed   A /opt/hello\n" in done.stdout
    assert "PASS in " in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "Output" not in line)
    left = tmp_path / "hello.run/waagent-hello-1.0.0"
    assert "success" in (left / "status/0.status").read_text()
    assert "password" not in (left / "config/0.settings").read_text()
    assert saved_paths() == before
    assert not Path("/opt/hello").exists()


def saved_paths() -> list[str]:
    """Where a run could leave something on this machine."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [*mounts, *sorted(os.listdir("/var/lib")), *sorted(os.listdir("/opt"))]


def test_a_good_handler_passes_through_all_operations(tmp_path: Path) -> None:
    path = a_handler(
        tmp_path, "Contoso.Good-1.2.3", "report success 0 fine; sleep 300 > /dev/null &"
    )

    status, document = result(tmp_path, str(path), "--operation", "all", "--again")

    assert (status, document["result"], document["version"]) == (0, "passed", "1.2.3")
    ran = [event["operation"] for event in events(document, "end")]
    assert ran == ["install", "enable", "enable", "disable", "uninstall"]
    (left,) = events(document, "left")
    assert [name for _, name in left["processes"]] == ["sleep", "sleep"]


def test_an_update_runs_in_the_contract_s_order(tmp_path: Path) -> None:
    note = 'echo "$VERSION from $AZURE_GUEST_AGENT_UPDATING_FROM_VERSION"'
    for version in ("1.0.0", "2.0.0"):
        (tmp_path / f"Contoso.Up-{version}.zip").write_bytes(
            packages.handler_zip({"enable": "report success 0 fine", "update": note})
        )

    status, document = result(
        tmp_path, "Contoso.Up-2.0.0.zip", "--update-from", "Contoso.Up-1.0.0.zip"
    )

    assert status == 0, document
    ran = [event["operation"] for event in events(document, "end")]
    assert " ".join(ran) == "install enable disable update uninstall install enable"
    assert "2.0.0 from 1.0.0" in [event["line"] for event in events(document, "output")]


def test_strict_lists_what_it_denied(tmp_path: Path) -> None:
    path = a_handler(tmp_path, "Contoso.Wide", "echo x > /etc/cron.d/x\nreport success 0 fine")

    status, document = result(tmp_path, str(path), "--profile", "strict")

    assert status == 0
    assert events(document, "left")[0]["denied"] == ["write /etc/cron.d/x"]
    assert events(document, "left")[0]["changed"] == []


@pytest.mark.parametrize(
    ("name", "enable", "manifest", "status", "says"),
    [
        ("Exits", "echo no such user >&2; exit 3", {}, 1, "Non-zero exit code: 3"),
        ("Hangs", "sleep 1000", {}, 4, "Timeout(2)"),
        ("Silent", "true", {}, 1, "no status file was written"),
        ("Garbled", "echo '{' > status/0.status", {}, 1, "status/0.status"),
        ("Absent", "true", {"enableCommand": "bin/missing"}, 1, "Non-zero exit code: 127"),
    ],
)
def test_a_broken_handler_fails_and_says_why(
    tmp_path: Path, name: str, enable: str, manifest: dict[str, str], status: int, says: str
) -> None:
    path = a_handler(tmp_path, f"Contoso.{name}", enable, manifest=manifest)

    done = lab(tmp_path, "run", str(path), "--timeout", "2")

    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stdout and "FAIL in " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


LINTED = {
    # what is wrong -> files besides the manifest, changes of handlerManifest, what lint says
    "python 2": ({"bin/a.py": "print 'x'\n"}, {}, "error: bin/a.py:1: no Python 3"),
    "imp": ({"bin/a.py": "import sys\nimport imp\n"}, {}, "error: bin/a.py:2: imp is gone in"),
    "carriage return": (
        {"bin/a.sh": "#!/bin/sh\r\nls\r\n"},
        {},
        "error: bin/a.sh:1: the line ends",
    ),
    "missing command": (
        {},
        {"enableCommand": "bin/nothing x"},
        "error: HandlerManifest.json: enable",
    ),
    "text boolean": ({}, {"reportHeartbeat": "true"}, "warning: HandlerManifest.json: reportHeart"),
    "hard path": (
        {"bin/a.sh": "#!/bin/sh\necho > /var/lib/waagent/x\n"},
        {},
        "warning: bin/a.sh:2: a hard-coded path",
    ),
    "unchecked tool": ({"bin/a.sh": "#!/bin/sh\njq . x\n"}, {}, "warning: bin/a.sh:2: needs jq"),
    "python command": (
        {"bin/a": "#!/usr/bin/env python\nx = 1\n"},
        {},
        "warning: bin/a:1: #!/usr/bin/env python",
    ),
    "nothing": ({}, {}, "nothing found"),
}


@pytest.mark.parametrize("wrong", LINTED)
def test_lint_names_file_line_and_remedy(tmp_path: Path, wrong: str) -> None:
    files, manifest, says = LINTED[wrong]
    folder = tmp_path / "handler"
    commands = {
        f"{word}Command": "bin/run"
        for word in ("install", "enable", "update", "disable", "uninstall")
    }
    document = [{"version": 1.0, "handlerManifest": {**commands, **manifest}}]
    for name, text in {
        "HandlerManifest.json": json.dumps(document),
        "bin/run": "#!/bin/sh\nexit 0\n",
        **files,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, newline="")

    done = lab(tmp_path, "lint", "handler")

    assert says in done.stdout, done.stdout + done.stderr
    assert done.returncode == (1 if says.startswith("error") else 0)


def test_what_is_no_handler_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")

    lint, run = lab(tmp_path, "lint", "x.zip"), lab(tmp_path, "run", "nothing")

    assert (lint.returncode, run.returncode) == (1, 3)
    assert "the package is refused" in lint.stdout
    assert run.stderr.startswith("waagent-lab: there is no handler: nothing: ")
