"""The box: PID 1 of namespaces of its own, over an overlay of `/`, nothing of which stays.

The handler's folders, settings, environment, shim and sandbox are made by the agent's own code, so
that what holds here holds on a VM. Each thing that happens is one JSON line on stdout. Started by
`run.py` with the order as its one argument.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.distro.operations import records
from waagent.distro.paths import Paths
from waagent.lab.extension import changes, running
from waagent.lab.extension.orders import ENABLE, Order, Step, steps
from waagent.lab.fabric.crypto import Tenant
from waagent.lab.fabric.values import LabError
from waagent.lab.machine import overlay
from waagent.lab.tools import run_tool
from waagent.protocol.bus.topics import ExtensionGoal
from waagent.protocol.handler.handler_errors import HandlerError
from waagent.protocol.handler.manifest import Manifest, command_line
from waagent.protocol.handler.settings_files import file_prefix
from waagent.protocol.handler.status_file import TERMINAL
from waagent.protocol.wire.constants import WIRESERVER
from waagent.workers.extension_runner import handler_files, limits, plan, prerequisites
from waagent.workers.extension_runner.environment import command_environment
from waagent.workers.extension_runner.handler_files import Folders
from waagent.workers.extension_runner.sandbox_wishes import Wish, WishError, read_wish, together
from waagent.workers.extension_runner.sandboxes import sandbox_of
from waagent.workers.extension_runner.status_reader import read_one
from waagent.workers.extension_runner.unpack import PackageRefused, unpack
from waagent.workers.extension_runner.unpack_job import Job

GOAL, EXTENSION = "incarnation_1", "one"
STATUS_POLL_S = 0.1
_UNSEEN = ("/run", "/tmp", "/dev", "/proc", "/sys", "/var/tmp")


class Box:
    """Invariant: everything that is written is written to file systems in memory."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.begun = time.monotonic()
        self.paths = Paths("/")
        self.peak = running.Peak()
        self.denied: list[str] = []
        self.sequence = 0
        self._lower = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        self._results = os.open(order.results, os.O_RDONLY | os.O_DIRECTORY)
        self._upper = self._enter()

    def tell(self, event: str, **facts: object) -> None:
        """One line to whoever started us."""
        at = round(time.monotonic() - self.begun, 2)
        print(json.dumps({"event": event, "at_s": at, **facts}), flush=True)

    def _enter(self) -> int:
        """Make the box's root ours; the folder that takes all changes."""
        package, old = self._read(self.order.package), self._read(self.order.old_package)
        stage = Path(self.order.root)
        overlay.tmpfs(stage)
        overlay.mount_root(stage / "root", [Path("/")], stage / "changed")
        upper = os.open(stage / "changed/upper", os.O_RDONLY | os.O_DIRECTORY)
        root = stage / "root"
        overlay.mount("proc", "proc", root / "proc")
        overlay.make_dev(root / "dev")
        for folder, mode in (("run", "755"), ("tmp", "1777"), ("var/lib/waagent", "755")):
            overlay.tmpfs(root / folder, f"mode={mode}")
        overlay.tmpfs(root / "var/log/azure", "mode=755")
        # last: a checkout may lie below a folder that is another one in here, such as /tmp
        for needed in sorted({sys.prefix, sys.base_prefix, str(_house())}):
            _bring(root, needed)
        run_tool(["mount", "-t", "sysfs", "-o", "ro,nosuid,nodev,noexec", "sysfs", root / "sys"])
        (root / "run/old").mkdir()
        run_tool(["pivot_root", root, root / "run/old"])
        os.chdir("/")
        run_tool(["umount", "--lazy", "/run/old"])
        os.rmdir("/run/old")
        run_tool(["mount", "--make-rshared", "/"])
        if not self.order.internet:
            run_tool(["ip", "link", "set", "lo", "up"])
        for place in (self.paths.run / "bus", self.paths.operations, self.paths.transport):
            place.mkdir(parents=True, mode=0o700)
        (self.paths.transport / "TransportPrivate.pem").touch(0o600)
        spool = self.paths.under("/run/spool")
        spool.mkdir()
        (spool / "new").write_bytes(package)
        (spool / "old").write_bytes(old)
        return upper

    def _read(self, path: str) -> bytes:
        return Path(path).read_bytes() if path else b""

    # the handler

    def unpack(self, file: str, version: str) -> Manifest:
        """Make the folder of ``version``. Raises PackageRefused, HandlerError, OSError."""
        folders = Folders(self.paths, self.order.name, version)
        spooled = self.paths.under("/run/spool") / file
        data = spooled.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        staging = self.paths.operations / "staging"
        job = Job(str(spooled.parent), file, len(data), digest, str(staging), str(folders.base))
        for warning in unpack(job)[0]:
            self.tell("warning", text=warning)
        handler_files.initialise(folders, self.order.name)
        return prerequisites.read_manifest(folders.base)

    def goal(self, manifest: Manifest) -> ExtensionGoal | None:
        """The settings as the platform sends them."""
        settings = self.order.settings
        if settings is None:
            return None
        protected, mark = settings.get("protectedSettings"), None
        if protected is not None:
            tenant = Tenant(self.paths.under("/run/tenant"))
            mark = tenant.thumbprint
            for ending, source in (("crt", tenant.certificate), ("prv", tenant.key)):
                target = self.paths.library / f"{mark}.{ending}"
                shutil.copyfile(source, target)
                target.chmod(0o600)
        return ExtensionGoal(
            EXTENSION if manifest.supports_multiple else "",
            self.sequence,
            "enabled",
            json.dumps(settings.get("publicSettings")),
            tenant.protect(protected) if mark else None,
            mark,
        )

    def run(self, number: int, step: Step, manifest: Manifest) -> records.Observation:
        """One command. Raises HandlerError, WishError, OSError."""
        goal = self.goal(manifest)
        folders = Folders(self.paths, self.order.name, step.version)
        handler_files.write_settings(folders, goal, is_multi=manifest.supports_multiple)
        extension = goal.name if goal is not None else ""
        key = plan.OperationKey(
            self.order.name, step.version, step.operation, extension, self.sequence, GOAL, "lab"
        )
        command = manifest.command(step.operation)
        if not command:
            raise HandlerError(
                f"the manifest has no {step.operation}Command", "HandlerManifest.json", "add it"
            )
        asked = read_wish(manifest.sandbox) if manifest.sandbox is not None else Wish()
        wish = together(Wish(self.order.profile or None), asked)
        marks = (goal.certificate_thumbprint or "",) if goal is not None else ()
        sandbox = sandbox_of(wish, self.paths, self.order.name, folders, [m for m in marks if m])
        environment = command_environment(key, str(folders.base), WIRESERVER, os.environ)
        self.tell("begin", operation=step.operation, command=command, sequence=self.sequence)
        seen = running.run(
            self.paths.operations / f"{number:032x}",
            command_line(str(folders.base), command),
            str(folders.base),
            {**environment, **step.environment},
            self.order.timeout_s or limits.TIMEOUTS_S[step.operation],
            sandbox,
            self.peak,
            self.tell,
            handler=self.order.name,
            version=step.version,
            operation=step.operation,
            extension=extension,
            sequence=self.sequence,
        )
        self.denied += [words for words in seen.denied if words not in self.denied]
        self.tell(
            "end",
            operation=step.operation,
            succeeded=seen.succeeded,
            how=records.describe_end(seen),
            elapsed_s=round(seen.elapsed_s or 0.0, 2),
            timed_out=seen.timed_out,
            profile=seen.profile,
        )
        return seen

    def status(self, step: Step, manifest: Manifest) -> bool | None:
        """Wait for a terminal status; whether it is a good one, None when none came."""
        folders = Folders(self.paths, self.order.name, step.version)
        extension = EXTENSION if manifest.supports_multiple else ""
        file = f"{file_prefix(extension, self.sequence)}.status"
        until = time.monotonic() + (self.order.timeout_s or limits.TIMEOUTS_S[ENABLE])
        while True:
            job = {"folder": str(folders.status), "file": file, "name": file, "known": []}
            said = read_one(job)
            word = said.get("status", {}).get("status")
            is_hopeless = not said.get("status") and not self.left()
            if word in TERMINAL or is_hopeless or time.monotonic() > until:
                self.tell("status", file=f"status/{file}", **said)
                return word in ("success", "warning") if word in TERMINAL else None
            time.sleep(STATUS_POLL_S)

    # what is left

    def left(self) -> list[int]:
        """Processes of the handler that live."""
        return self.peak.look(running.ours(self.paths.operations))

    def leave(self) -> None:
        """Tell what the run changed, and keep what the handler wrote."""
        upper, lower = (Path(f"/proc/self/fd/{fd}") for fd in (self._upper, self._lower))
        ours = (str(_house()), sys.prefix, str(self.paths.library), str(self.paths.handler_logs))
        made = changes.changes(upper, lower, (*_UNSEEN, *ours))
        left = [(pid, _name(pid)) for pid in self.left()]
        self.tell(
            "left",
            changed=made,
            processes=left,
            no_way_out=0 if self.order.internet else _no_routes(),
            denied=self.denied,
            peak_bytes=self.peak.memory_bytes,
            peak_processes=self.peak.processes,
        )
        results = Path(f"/proc/self/fd/{self._results}")
        for folder in (self.paths.library, self.paths.handler_logs):
            for source in sorted(folder.glob(f"{self.order.name}*")):
                target = results / f"{folder.name}-{source.name}"
                shutil.copytree(
                    source,
                    target,
                    symlinks=True,
                    ignore=lambda _, names: [n for n in names if n.endswith(".prv")],
                    ignore_dangling_symlinks=True,
                    dirs_exist_ok=True,
                )


def main() -> int:
    """Carry out the order; 0 when the box did its work, whatever the handler did."""
    order = Order(**json.loads(sys.argv[1]))
    os.umask(0o022)
    overlay.mount("proc", "proc", "/proc")
    try:
        box = Box(order)
    except (LabError, OSError) as error:
        print(json.dumps({"event": "no_box", "text": str(error)}), flush=True)
        return 3
    try:
        verdict = _carry_out(box)
    except (PackageRefused, HandlerError, WishError) as error:
        box.tell("refused", text=str(error))
        verdict = False
    box.leave()
    if order.shell:
        folder = Folders(box.paths, order.name, order.version).base
        subprocess.call(["/bin/sh"], cwd=folder if folder.is_dir() else "/", stdout=sys.stderr)
    box.tell("verdict", passed=bool(verdict))
    return 0


def _carry_out(box: Box) -> bool:
    order = box.order
    manifests: dict[str, Manifest] = {}
    if order.old_package:
        manifests[order.old_version] = box.unpack("old", order.old_version)
    manifests[order.version] = box.unpack("new", order.version)
    for number, step in enumerate(steps(order)):
        if order.old_package and step.version == order.version and box.sequence == 0:
            box.sequence = 1  # an update comes with new settings
        seen = box.run(number, step, manifests[step.version])
        if not seen.succeeded:
            return False
        needs_status = step.operation == ENABLE and order.settings is not None
        if needs_status and not box.status(step, manifests[step.version]):
            return False
    return True


def _house() -> Path:
    """The folder that holds the package `waagent`."""
    return Path(__file__).resolve().parents[2]


def _bring(root: Path, place: str) -> None:
    """Show a folder of this machine that is hidden, or on another file system than `/`."""
    target = root / place.lstrip("/")
    if not target.exists() or not any(target.iterdir()):
        target.mkdir(parents=True, exist_ok=True)
        overlay.mount("bind", place, target)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"


def _no_routes() -> int:
    """How often somebody wanted to go where no way leads (proc/net/snmp, OutNoRoutes)."""
    lines = Path("/proc/net/snmp").read_text(encoding="ascii").splitlines()
    heads, values = (line.split() for line in lines if line.startswith("Ip:"))
    found: Mapping[str, Any] = dict(zip(heads, values))
    return int(found.get("OutNoRoutes", 0))


if __name__ == "__main__":
    sys.exit(main())
