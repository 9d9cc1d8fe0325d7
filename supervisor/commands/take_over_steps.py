"""`waagent -take-over [-plan]`: stop the agent that ran here before, and go on from its state.

Every step may be cut off and done again: the stamp is written last. Run by the packages before the
first start; where nothing is to be taken over it does nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from waagent import __version__
from waagent.distro import files, processes, run
from waagent.distro.paths import Paths
from waagent.protocol import taken_over_file
from waagent.supervisor.commands import predecessor, take_over_plan
from waagent.supervisor.commands.predecessor import Left, Process

WAIT_S = 300.0  # for commands of handlers that the old agent has started: their own limit
TOOL_S = 90.0
SETTINGS = "10-taken-over.conf"
_SECURITY = ("-t", "security", "-D", "OUTPUT", "-d", "168.63.129.16", "-p", "tcp")
_RULES = (
    ("--destination-port", "53", "-j", "ACCEPT"),
    ("-m", "owner", "--uid-owner", "0", "-j", "ACCEPT"),
    ("-m", "conntrack", "--ctstate", "INVALID,NEW", "-j", "DROP"),
    ("-m", "conntrack", "--ctstate", "INVALID,NEW", "-j", "ACCEPT"),
)


def take_over(paths: Paths, *, only_plan: bool) -> int:
    """Print the plan, and carry it out unless ``only_plan``; the exit status."""
    left = predecessor.look(paths)
    if not left.is_there:
        print("nothing to take over: no state of another agent")
        return 0
    settings = take_over_plan.kept_settings(_text(paths.configuration))
    drop_ins = [str(path) for path in predecessor.operators_drop_ins(paths)]
    for line in take_over_plan.lines_of(left, settings, drop_ins):
        print(line, flush=True)
    if only_plan:
        return 0
    _carry_out(paths, left, settings)
    print("taken over", flush=True)
    return 0


def _carry_out(paths: Paths, left: Left, settings: str) -> None:
    files.make_folder(paths.library, 0o700)
    files.make_folder(paths.operations, 0o700)
    if left.has_transport_key:
        _keep_transport_key(paths)
    if settings:
        files.make_folder(paths.configuration_folder, 0o755)
        files.write_atomic(paths.configuration_folder / SETTINGS, settings.encode(), mode=0o644)
    before = _wait_for_commands(paths, left)
    if before.unit:
        _move_handlers(before)
        _tool("systemctl", "stop", before.unit)
        _tool("systemctl", "disable", "--quiet", before.unit)
        _end_agents(before)
        # what we knew before another agent ran here is out of date; its own states hold
        shutil.rmtree(paths.operations / "handlers", ignore_errors=True)
    for link in paths.under("/etc/systemd/system").glob("*.wants/walinuxagent.service"):
        if not link.exists():
            link.unlink()  # to a unit that went with its package
    alive = predecessor.still_alive(before.processes)
    settled = predecessor.settled(before, alive)
    document = taken_over_file.packed(processes.boot_id(), settled)
    files.write_atomic(paths.operations / taken_over_file.NAME, document, mode=0o600)
    for file in left.files:
        _tool("systemctl", "disable", "--now", "--quiet", file.name)
        file.unlink(missing_ok=True)
    if left.files:
        _tool("systemctl", "daemon-reload")
    _remove_firewall_rules()
    stamp = predecessor.as_stamp(left, __version__)
    files.write_atomic(paths.library / predecessor.STAMP, stamp, mode=0o644)


def _keep_transport_key(paths: Paths) -> None:
    """Copies first, so that a cut leaves the pair at its old place; certificate_keeper makes that
    one a link.
    """
    files.make_folder(paths.transport, 0o700)
    for name in ("TransportPrivate.pem", "TransportCert.pem"):
        content = (paths.library / name).read_bytes()
        files.write_atomic(paths.transport / name, content, mode=0o600)


def _wait_for_commands(paths: Paths, left: Left) -> Left:
    """What is there once no command of a handler is under way, or the limit has passed."""
    ends_at = time.monotonic() + WAIT_S
    said = ""
    while (running := predecessor.in_flight(left)) and time.monotonic() < ends_at:
        names = " ".join(sorted({process.handler for process in running}))
        if names != said:
            print(f"waiting for the commands of {names}, at most {WAIT_S:.0f} s", flush=True)
            said = names
        time.sleep(1.0)
        left = predecessor.look(paths)
    return left


def _move_handlers(left: Left) -> None:
    """What handlers left running goes on, in a scope of its handler's slice: it would end with the
    unit.
    """
    groups: dict[str, list[Process]] = {}
    for process in left.processes:
        if not process.is_agent:
            name = process.handler.rpartition("-")[0] or "unknown"
            groups.setdefault(name, []).append(process)
    for name, found in groups.items():
        pids = [str(process.pid) for process in predecessor.still_alive(found)]
        if not pids:
            continue
        destination = "org.freedesktop.systemd1"
        call = ("call", destination, "/org/freedesktop/systemd1", f"{destination}.Manager")
        scope = f"waagent-taken-over-{name}-{pids[0]}.scope"
        slice_name = f"azure-vmextensions-{name}.slice"
        arguments = (scope, "fail", "2", "Slice", "s", slice_name, "PIDs", "au", str(len(pids)))
        _tool(*("busctl", *call, "StartTransientUnit", "ssa(sv)a(sa(sv))", *arguments, *pids, "0"))


def _end_agents(left: Left) -> None:
    """The old agent's own processes that outlived its unit."""
    agents = [process for process in left.processes if process.is_agent]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in predecessor.still_alive(agents):
            os.kill(process.pid, number)
        ends_at = time.monotonic() + 5.0
        while predecessor.still_alive(agents) and time.monotonic() < ends_at:
            time.sleep(0.1)


def _remove_firewall_rules() -> None:
    """Exactly those that the agent before makes; others stay."""
    for rule in _RULES:
        while _tool("iptables", "-w", *_SECURITY, *rule):
            continue
    _tool("nft", "delete", "table", "ip", "walinuxagent")


def _tool(*argv: str) -> bool:
    """Run a tool that may be missing or have nothing to do; whether it succeeded."""
    if shutil.which(argv[0]) is None:
        return False
    try:
        run.run(list(argv), deadline_s=TOOL_S)
    except run.ToolError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
