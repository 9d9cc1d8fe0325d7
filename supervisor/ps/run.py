"""What `waagent-ps` does with its words: list, watch, wait, restart; whatever state the agent is
in, it answers within a second.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from waagent import __version__
from waagent.distro.paths import Paths
from waagent.protocol import state_table
from waagent.protocol.base.input_errors import UsageError
from waagent.protocol.operations_file import UNDER_WAY
from waagent.supervisor.ps import arguments, gather, tables
from waagent.supervisor.ps.arguments import Line
from waagent.supervisor.ps.snapshot import Snapshot, exit_status, facts_of, failed, newest
from waagent.supervisor.ps.tables import WIDE_FROM, Form
from waagent.supervisor.ps.text import plain

USAGE, NOT_ANSWERING, NOT_PERMITTED, TIME_OVER = 2, 3, 4, 6
POLL_S = 0.5
GRACE_S = 10.0  # a supervisor that is being replaced does not answer for a moment


def main() -> int:
    """Run one command; its exit status as in ui.md, section 2."""
    try:
        line = arguments.read_line(sys.argv[1:])
    except UsageError as error:
        return _fail(str(error), USAGE)
    try:
        if os.geteuid() == 0 and os.path.exists("/run/waagent/.masked"):
            from waagent.distro.fences import mask  # we run inside an extension's command

            mask.leave()
        status = _run(line, Paths(line.options.get("root", "/")), os.environ)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _fail(f"{error.strerror}: {error.filename}: run it outside of the extension", 3)
    return status


def _run(line: Line, paths: Paths, environment: Mapping[str, str]) -> int:
    if line.has("help"):
        print(arguments.usage())
        return 0
    if line.has("version"):
        print(f"waagent-ps {__version__}")
        return 0
    if line.command in ("stop", "reset"):
        return _order(paths, line)
    if line.command == "restart":
        return _restart(paths, line.name)
    if line.has("wait"):
        return _wait(line, paths)
    form = _form(line, environment)
    if line.has("watch"):
        from waagent.supervisor.ps import watch  # termios and more, which a listing does not need

        return watch.watch(paths, form, only_extensions=line.command == "extensions")
    snapshot = gather.take_snapshot(paths)
    if line.has("json"):
        _print_json(snapshot)
    elif line.has("metrics"):
        from waagent.supervisor.ps import metrics  # not for a listing

        print(metrics.text(snapshot), end="")
    else:
        print("\n".join(_text(line, snapshot, form)))
    return _extensions_status(snapshot) if line.command == "extensions" else exit_status(snapshot)


def _text(line: Line, snapshot: Snapshot, form: Form) -> list[str]:
    if line.command == "extensions":
        return tables.extensions(snapshot.operations, form, is_all=line.has("all"))
    return tables.listing(snapshot, form)


def _extensions_status(snapshot: Snapshot) -> int:
    return 1 if failed(snapshot.operations) else 0


def _print_json(snapshot: Snapshot) -> None:
    import json  # 4 ms

    from waagent.supervisor.ps.json import document

    print(json.dumps(document(snapshot), indent=1))


def _form(line: Line, environment: Mapping[str, str]) -> Form:
    is_terminal = sys.stdout.isatty()
    columns = os.get_terminal_size(1).columns if is_terminal else 0
    when = line.options.get("color", "auto")
    allowed = (
        is_terminal and "NO_COLOR" not in environment and environment.get("TERM", "dumb") != "dumb"
    )
    is_colour = when == "always" or (when == "auto" and allowed)
    if line.has("wide"):
        return Form(max(columns, 200), True, is_colour)
    return Form(columns if columns >= WIDE_FROM else 80, columns >= WIDE_FROM, is_colour)


def _order(paths: Paths, line: Line) -> int:
    if os.geteuid() != 0:
        words = f"extensions {line.command}"
        return _fail(f"{words} needs root; try: sudo waagent-ps {words} {line.name}", NOT_PERMITTED)
    from waagent.supervisor.ps import extension_orders  # records and cgroups, only for these

    carry_out = extension_orders.stop if line.command == "stop" else extension_orders.reset
    try:
        print("\n".join(carry_out(paths, line.name)))
    except extension_orders.Said as said:
        return _fail(str(said), said.status)
    return 0


def _restart(paths: Paths, name: str) -> int:
    if os.geteuid() != 0:
        return _fail(f"restart needs root; try: sudo waagent-ps restart {name}", NOT_PERMITTED)
    from waagent.protocol import control

    try:
        answer = gather.request(paths, "restart", name=name)
    except (OSError, control.ControlError) as error:
        return _fail(
            f"the supervisor does not answer: {paths.control_socket}, {error}: see waagent-ps",
            NOT_ANSWERING,
        )
    if answer.get("type") in ("refused", "error"):
        why = str(answer.get("reason") or answer.get("text") or "")
        return _fail(
            f"{name} is not restarted: {why}: see waagent-ps",
            NOT_PERMITTED if "root" in why else USAGE,
        )
    return 0


def _wait(line: Line, paths: Paths) -> int:
    """Until what is waited for is reached (0) or failed (1); nobody answers (3); time over (6)."""
    limit_s = float(line.options["timeout"]) if line.has("timeout") else float("inf")
    judge = _provisioned if line.options["wait"] == "provisioned" else _extensions_done
    begun = answered = time.monotonic()
    while True:
        snapshot = gather.take_snapshot(paths, with_memory=False)
        now = time.monotonic()
        if snapshot.silence is None:
            answered = now
            verdict = judge(snapshot)
            if verdict is not None:
                return _fail(verdict, 1) if verdict else 0
        if now - begun >= limit_s:
            silent = snapshot.silence is not None
            return _fail(
                f"not {line.options['wait']} after {limit_s:g} s: see waagent-ps",
                NOT_ANSWERING if silent else TIME_OVER,
            )
        if snapshot.silence is not None and now - answered >= GRACE_S:
            return _fail(
                f"supervisor not answering: {snapshot.silence.text}: {snapshot.silence.remedy}",
                NOT_ANSWERING,
            )
        time.sleep(min(POLL_S, max(0.0, begun + limit_s - now)))


def _provisioned(snapshot: Snapshot) -> str | None:
    """Empty when the VM is provisioned, the reason when that failed, None while it goes on."""
    if snapshot.provisioned:
        return ""
    told = facts_of(snapshot.workers, "provisioner").failure
    if told:
        return f"not provisioned: {told}"
    for worker in snapshot.workers:
        if worker.name == "provisioner" and worker.state == state_table.DONE:
            return (
                "not provisioned:"
                f" {worker.result or worker.reason or 'the provisioner gave no reason'}: see"
                " /var/log/waagent.log"
            )
        if worker.name == "provisioner" and worker.state == state_table.PARKED:
            return f"not provisioned: {worker.reason or worker.last_exit}: see /var/log/waagent.log"
    return None


def _extensions_done(snapshot: Snapshot) -> str | None:
    """The same of extensions: none under way, none failed, and the goal state is known."""
    rows = newest(snapshot.operations.rows)
    runner = next(
        (worker for worker in snapshot.workers if worker.name == "extension_runner"), None
    )
    if (
        any(row.state in UNDER_WAY for row in rows)
        or not snapshot.goal_state
        or not snapshot.provisioned
    ):
        return None
    broken = failed(snapshot.operations)
    if broken:
        return (
            f"{broken[0].handler} failed at {broken[0].operation}, {len(broken)} in all: see"
            " waagent-ps extensions"
        )
    is_idle = runner is None or runner.state in (state_table.IDLE, state_table.OFF)
    is_current = snapshot.goal_state == snapshot.operations.goal_state
    return "" if is_idle or is_current else None


def _fail(text: str, status: int) -> int:
    print(f"waagent-ps: {plain(text)}", file=sys.stderr)
    return status
