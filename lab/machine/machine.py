"""The throw-away machine for tests and for the demo: start it, run commands in it, look at it, and
nothing of it stays.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from waagent.lab.fabric.control import RemoteFabric
from waagent.lab.fabric.values import LabError
from waagent.lab.fabric.watching import NotSeen
from waagent.lab.machine import cgroups, layers
from waagent.lab.tools import checkout, short_path

START_LIMIT_S = 180.0
PREFIX = "waagent-machine-"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Completed(NamedTuple):
    """How a command in the machine ended."""

    status: int
    stdout: str
    stderr: str


class Machine:
    """One VM and its platform. Invariant: while open, the keeper process lives; when it ends,
    everything of the machine does.
    """

    def __init__(
        self,
        tmp: Path,
        *,
        dvd: Path | None = None,
        agent: bool = True,
        with_agent: bool = True,
        fabric: bool = True,
        sshd: bool = True,
        dhcp: bool = True,
        option_245: bool = True,
        host_name: str = "localhost",
        files: Mapping[str, str] | None = None,
        scheme: str = "https",
        remove_folder: bool = True,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
    ) -> None:
        """``tmp`` holds its folder. ``agent``: start the supervisor; ``with_agent``: have it
        installed at all.

        ``dvd`` is an image behind /dev/sr0; ``files`` are written before the agent starts (path ->
        text).
        """
        if os.geteuid() != 0:
            raise LabError(
                "the machine needs root (namespaces, overlay, loop device)",
                f"uid {os.geteuid()}",
                "run it with sudo",
            )
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(3)}"
        self.folder = tmp / self.name
        self.folder.mkdir(parents=True)
        self._order = {
            "name": self.name,
            "prefix": PREFIX,
            "folder": str(self.folder),
            "dvd": str(dvd.resolve()) if dvd is not None else "",
            "layers": [str(path) for path in layers.ensure(say, with_agent)],
            "agent": agent and with_agent,
            "fabric": fabric,
            "sshd": sshd,
            "dhcp": dhcp,
            "option_245": option_245,
            "host_name": host_name,
            "files": dict(files or {}),
            "scheme": scheme,
            "remove_folder": remove_folder,
            "hierarchies": [[item.kind, item.name, item.options] for item in cgroups.hierarchies()],
        }
        self._keeper = self._start_keeper()
        try:
            self.facts = self._await_ready()
            self.init, self.platform = self._find_inits()
        except BaseException:
            self.stop()
            raise
        self.address = str(self.facts["address"])
        self.fabric = RemoteFabric(self.folder / "fabric")

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the machine and wait until nothing of it is left. Raises LabError when something
        stayed.
        """
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
        self._keeper.wait(30.0)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()
        # all gone, unless the keeper was killed
        left = cgroups.remove([item.mount_point / self.name for item in cgroups.hierarchies()])
        if self._order["remove_folder"]:
            shutil.rmtree(self.folder, ignore_errors=True)
        if left:
            raise LabError(
                "something of the machine stayed",
                " ".join(map(str, left)),
                "see what runs in there",
            )

    # commands

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        timeout_s: float = 120.0,
        check: bool = False,
        stdin: bytes = b"",
        joined: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run ``argv`` in the machine; ``joined`` puts it into the machine's cgroups, too. Raises
        LabError if ``check`` and it fails.
        """
        words = self._entering(argv, user, joined, env)
        done = subprocess.run(
            words, input=stdin, capture_output=True, timeout=timeout_s, check=False
        )
        result = Completed(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )
        if check and result.status != 0:
            raise LabError(
                f"ended with {result.status}",
                " ".join(argv),
                result.stderr[-800:] or result.stdout[-800:],
            )
        return result

    def popen(
        self, argv: Sequence[str], *, user: str | None = None, joined: bool = False, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start ``argv`` in the machine; options as of subprocess.Popen."""
        return subprocess.Popen(self._entering(argv, user, joined, None), **options)

    def _entering(
        self, argv: Sequence[str], user: str | None, joined: bool, env: Mapping[str, str] | None
    ) -> list[str]:
        enter = [
            "nsenter",
            "--target",
            str(self.init),
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--cgroup",
            "--root",
            "--wd",
            "--",
        ]
        settings = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "HOME": "/root", **(env or {})}
        words = [*enter, "env", "-i", *(f"{name}={value}" for name, value in settings.items())]
        words += ["runuser", "-u", user, "--", *argv] if user is not None else list(argv)
        if not joined:
            return words
        files = [
            str(folder / self.name / "cgroup.procs")
            for folder in {item.mount_point for item in cgroups.hierarchies()}
        ]
        script = 'while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift; exec "$@"'
        return [
            "sh",
            "-c",
            script,
            "sh",
            *(path for path in files if os.path.exists(path)),
            "--",
            *words,
        ]

    def read(self, path: str) -> str:
        """The text of a file of the machine. Raises LabError when there is none."""
        return self.run(["cat", path], check=True).stdout

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path]).status == 0

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file of the machine, its folder made when it is not there."""
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], stdin=content, check=True)

    def ssh(self, user: str, key: Path, command: str, *, timeout_s: float = 90.0) -> Completed:
        """Log in from the platform's side with the private key in ``key`` and run ``command``."""
        copy = self._platform_file(key.read_bytes(), 0o600)
        return self._ssh(["-o", "BatchMode=yes", "-i", copy], user, command, timeout_s)

    def ssh_by_password(
        self, user: str, password: str, command: str, *, timeout_s: float = 90.0
    ) -> Completed:
        """The same with a password, which a program of ssh's asking is given."""
        answer = self._platform_file(password.encode(), 0o600)
        ask = self._platform_file(f"#!/bin/sh\ncat {answer}\n".encode(), 0o700)
        options = ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1"]
        asked = {"SSH_ASKPASS": ask, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
        return self._ssh(options, user, command, timeout_s, asked)

    def _platform_file(self, content: bytes, mode: int) -> str:
        """Write a file on the platform's side; its path there."""
        path = f"/tmp/{secrets.token_hex(6)}"
        with open(
            f"/proc/{self.platform}/root{self.facts['tools']}{path}",
            "wb",
            opener=lambda path, flags: os.open(path, flags, mode),
        ) as stream:
            stream.write(content)
        return path

    def _ssh(
        self,
        words: Sequence[str],
        user: str,
        command: str,
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"]
        options += ["ConnectTimeout=10", "LogLevel=ERROR"]
        # sshd takes its new configuration about when Ready is said, and listens anew
        options += ["ConnectionAttempts=5"]
        more = [word for option in options for word in ("-o", option)]
        done = subprocess.run(
            [
                "nsenter",
                "--target",
                str(self.platform),
                "--mount",
                "--net",
                "--",
                "chroot",
                str(self.facts["tools"]),
                "ssh",
                *more,
                *words,
                f"{user}@{self.address}",
                command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(env or {})},
        )
        return Completed(
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )

    # the agent

    def order(self, text: str) -> dict[str, Any]:
        """One order to the machine's init: start-agent, stop-agent, eject-dvd, status."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(120.0)
            with short_path(self.folder / "init") as address:
                connection.connect(address)
            connection.sendall(text.encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile("rb").readline() or b"{}")
            return answer

    def ps(self) -> dict[str, Any]:
        """What `waagent-ps --json` says; empty when it says nothing that can be read."""
        said = self.run(["waagent-ps", "--json"]).stdout
        try:
            table: dict[str, Any] = json.loads(said)
        except ValueError:
            return {}
        return table

    def worker(self, name: str) -> dict[str, Any]:
        """The row of one worker; empty when there is none."""
        return next((row for row in self.ps().get("workers", []) if row["name"] == name), {})

    def pid_of(self, name: str) -> int:
        """A worker's pid in the machine (`supervisor` too); 0 when it does not run."""
        table = self.ps()
        if name == "supervisor":
            return int(table.get("supervisor", {}).get("pid") or 0)
        return next(
            (int(row["pid"] or 0) for row in table.get("workers", []) if row["name"] == name), 0
        )

    def wait_ps(
        self,
        is_it: Callable[[dict[str, Any]], Any],
        deadline_s: float = 90.0,
        what: str = "the table",
    ) -> dict[str, Any]:
        """The first table for which ``is_it`` is true. Raises NotSeen with the last one."""
        end = time.monotonic() + deadline_s
        while True:
            table = self.ps()
            if table and is_it(table):
                return table
            if time.monotonic() > end:
                seen = self.run(["waagent-ps"]).stdout
                raise NotSeen(
                    f"{what} was not seen in {deadline_s:.0f} s;"
                    f" waagent-ps:\n{seen}\n{self.trouble()}"
                )
            time.sleep(0.15)

    def wait_states(
        self, names: Iterable[str], state: str = "READY", deadline_s: float = 90.0
    ) -> dict[str, Any]:
        """Wait until a living supervisor says that each of ``names`` is in ``state``."""
        wanted = set(names)

        def reached(table: dict[str, Any]) -> bool:
            there = {row["name"] for row in table.get("workers", []) if row["state"] == state}
            return table.get("source") == "supervisor" and wanted <= there

        return self.wait_ps(reached, deadline_s, f"{' '.join(sorted(wanted))} {state}")

    def trouble(self) -> str:
        """The ends of the logs that explain most: init, the agent's console, the agent's log."""
        ends = []
        for path in ("/var/log/init.log", "/var/log/agent-console.log", "/var/log/waagent.log"):
            ends.append(f"--- {path}\n{self.run(['tail', '-n', '25', path]).stdout}")
        return "\n".join(ends)

    # start

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout()),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with open(self.folder / "keeper.log", "wb") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "waagent.lab.machine.keeper", json.dumps(self._order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                cwd="/",
                start_new_session=True,
            )

    def _await_ready(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        ready, _, _ = select.select([self._keeper.stdout], [], [], START_LIMIT_S)
        line = self._keeper.stdout.readline() if ready else b""
        if not line:
            said = [
                f"{name}: {(self.folder / name).read_text(errors='replace')[-1500:]}"
                for name in ("keeper.log", "console", "dnsmasq.log")
                if (self.folder / name).exists()
            ]
            raise LabError(
                "the machine did not come up",
                self.name,
                "\n".join(said) or "its logs are gone with its folder",
            )
        facts: dict[str, Any] = json.loads(line)
        return facts

    def _find_inits(self) -> tuple[int, int]:
        """(pid of the VM's init, pid of the platform) as the caller's PID namespace counts them."""
        parents = {}
        depth = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = dict(
                        line.split(":", 1)
                        for line in Path("/proc", entry, "status").read_text().splitlines()
                    )
                except (OSError, ValueError):
                    continue
                parents[int(entry)] = int(fields["PPid"])
                depth[int(entry)] = fields["NSpid"].split()
        ours = len(depth[os.getpid()])
        inits = {}
        for pid, numbers in depth.items():
            if (
                numbers[-1] == "1"
                and len(numbers) > ours
                and self._keeper.pid in _ancestors(pid, parents)
            ):
                inits[len(numbers) - ours] = pid
        return inits[2], inits[1]


def _ancestors(pid: int, parents: Mapping[int, int]) -> set[int]:
    found = set()
    while pid in parents and pid not in found:
        found.add(pid)
        pid = parents[pid]
    return found
