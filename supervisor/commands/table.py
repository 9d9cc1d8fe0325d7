"""The commands of `waagent` for people and init systems; each takes a command line and gives an
exit status.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from waagent import __version__
from waagent.distro.paths import Paths
from waagent.protocol.configuration import loading, options, values
from waagent.supervisor.commands import about, arguments
from waagent.supervisor.commands.arguments import LATER, Line

SWITCHES = ("subreaper", "cgroups", "landlock", "psi", "systemd")
"""What WAAGENT_WITHOUT may switch off, for tests and for machines on which it misbehaves."""


def run(line: Line, environment: Mapping[str, str]) -> int:
    """Carry out ``line``; usage, and a failure, when it names no command."""
    command = line.command
    if command is None:
        print(arguments.usage(), file=sys.stderr)
        return 1
    if command.when == LATER:
        return fail(
            f"-{command.name} is not in this version: waagent {__version__}: see waagent -help for"
            " what is"
        )
    if command.needs_root and os.geteuid() != 0:
        return fail(f"-{command.name} needs root; try: sudo waagent -{command.name}")
    if line.configuration_path is not None and not os.path.isfile(line.configuration_path):
        return fail(
            f"no configuration file: {ascii(line.configuration_path)}: correct -configuration-path"
        )
    return _COMMANDS[command.name](line, environment)


def fail(text: str) -> int:
    """Say ``text`` on stderr; exit status 1."""
    print(f"waagent: {text}", file=sys.stderr)
    return 1


def load(line: Line) -> tuple[Paths, loading.Loaded]:
    """The paths below the root prefix of ``line`` and the configuration that is in force there."""
    paths = Paths(line.root)
    path = None if line.configuration_path is None else Path(line.configuration_path).absolute()
    loaded = loading.load(paths, path)
    return (
        paths.configured(loaded.values),
        loaded,
    )


def _help(line: Line, environment: Mapping[str, str]) -> int:
    print(arguments.usage())
    return 0


def _version(line: Line, environment: Mapping[str, str]) -> int:
    print(f"WALinuxAgent-{__version__} running on {about.system_name(Paths(line.root))}")
    print(f"Python: {'.'.join(map(str, sys.version_info[:3]))}")
    print(f"Goal state agent: {__version__}")
    return 0


def _show_configuration(line: Line, environment: Mapping[str, str]) -> int:
    _, loaded = load(line)
    for name in sorted(loaded.values):
        if options.OPTIONS[name].use == options.GONE:
            continue
        origin = f"  # {loaded.origins.get(name, 'default')}" if line.is_verbose else ""
        print(f"{name} = {values.printed(loaded.values[name])}{origin}")
    warnings = sum(finding.level == loading.WARNING for finding in loaded.findings)
    if warnings:
        word = "finding" if warnings == 1 else "findings"
        print(
            f"waagent: {warnings} {word} in the configuration: see waagent -check-configuration",
            file=sys.stderr,
        )
    return 0


def _check_configuration(line: Line, environment: Mapping[str, str]) -> int:
    # only this command needs them
    from waagent.distro.distributions import family_of
    from waagent.supervisor.commands import required_programs

    if line.value is not None:
        loaded = loading.load(Paths(line.root), Path(line.value), drop_ins=False, judge_owner=False)
    else:
        _, loaded = load(line)
    for finding in loaded.findings:
        print(finding)
    missing = required_programs.missing_tools(
        loaded.values, family_of(Paths(line.root)), environment.get("PATH", "")
    )
    for tool in missing:
        print(tool)
    wrong = sum(finding.level == loading.WARNING for finding in loaded.findings)
    read, given = len(loaded.files), len(loaded.origins)
    print(
        f"{read} files read, {given} options set, {len(loaded.findings)} findings, {len(missing)}"
        " tools missing"
    )
    return 1 if wrong or (missing and line.value is None) else 0


def _daemon(line: Line, environment: Mapping[str, str]) -> int:
    from waagent.supervisor.commands import configuration_reader, service

    paths, loaded = load(line)
    without = frozenset(
        word.strip() for word in environment.get("WAAGENT_WITHOUT", "").split(",") if word.strip()
    )
    for word in sorted(without.difference(SWITCHES)):
        print(
            f"waagent: WAAGENT_WITHOUT={ascii(word)}: environment: write one of"
            f" {' '.join(SWITCHES)}",
            file=sys.stderr,
        )
    obstacle = about.unreadable_for_workers()
    if obstacle is not None:
        finding = loading.Finding(
            str(obstacle.folder), 0, "(python)", obstacle.problem, obstacle.remedy
        )
        loaded = loaded._replace(findings=(*loaded.findings, finding))
        print(f"waagent: {finding}", file=sys.stderr)
    if service.running_pid(paths) is None:
        service.write_pid_file(paths, str(loaded.values.get("Pid.File") or ""))
    configuration_reader.become_supervisor(
        paths, loaded, without & frozenset(SWITCHES), line.is_verbose
    )
    return 1  # not reached


def _start(line: Line, environment: Mapping[str, str]) -> int:
    from waagent.supervisor.commands import service

    paths, _ = load(line)
    running = service.running_pid(paths)
    if running is not None:
        return fail(f"already running: pid {running}: see waagent-ps, or stop it first")
    words = ["-daemon"]
    words += (
        [f"-configuration-path:{os.path.abspath(line.configuration_path)}"]
        if line.configuration_path is not None
        else []
    )
    words += [f"-root:{os.path.abspath(line.root)}"] if "root" in line.flags else []
    words += ["-verbose"] if line.is_verbose else []
    service.leave_guardian(paths, words)
    return 0


def _stop(line: Line, environment: Mapping[str, str]) -> int:
    from waagent.supervisor.commands import service

    paths, loaded = load(line)
    problem = service.ask(paths, "stop", wait_for_end=True)
    if not problem:
        service.remove_pid_file(paths, str(loaded.values.get("Pid.File") or ""))
    return _told(problem)


def _reload(line: Line, environment: Mapping[str, str]) -> int:
    from waagent.supervisor.commands import service

    return _told(service.ask(Paths(line.root), "reload", wait_for_end=False))


def _serialconsole(line: Line, environment: Mapping[str, str]) -> int:
    # only this command needs them
    from waagent.distro.run import ToolError
    from waagent.distro.run import run as run_tool
    from waagent.protocol.base.errors import ExplainedError
    from waagent.supervisor.commands import serial_console

    paths = Paths(os.path.abspath(line.root))
    try:
        said = serial_console.configure(paths, run_tool, os.uname().machine)
    except (ExplainedError, ToolError) as error:
        return fail(str(error))
    print("\n".join(said or ["nothing to change, the serial console is configured"]))
    return 0


def _collect_logs(line: Line, environment: Mapping[str, str]) -> int:
    from waagent.supervisor.commands import collect_logs

    paths, _ = load(line)
    archive, report = collect_logs.collect(paths)
    if line.is_verbose:
        print("\n".join(report))
    print(f"{archive}: {len(report)} entries, listed in {archive.with_name(collect_logs.REPORT)}")
    return 0


def _take_over(line: Line, environment: Mapping[str, str]) -> int:
    # only this command needs it
    from waagent.supervisor.commands.take_over_steps import take_over

    paths, _ = load(line)
    return take_over(paths, only_plan="plan" in line.flags)


def _deprovision(line: Line, environment: Mapping[str, str]) -> int:
    # only this command needs it
    from waagent.supervisor.commands import deprovision

    paths, loaded = load(line)
    assert line.command is not None
    with_user = line.command.name == "deprovision+user"
    return deprovision.deprovision(line, paths, loaded, with_user=with_user)


def _told(problem: str) -> int:
    return fail(problem) if problem else 0


_COMMANDS: dict[str, Callable[[Line, Mapping[str, str]], int]] = {
    "help": _help,
    "version": _version,
    "show-configuration": _show_configuration,
    "check-configuration": _check_configuration,
    "daemon": _daemon,
    "start": _start,
    "stop": _stop,
    "reload": _reload,
    "take-over": _take_over,
    "deprovision": _deprovision,
    "deprovision+user": _deprovision,
    "serialconsole": _serialconsole,
    "collect-logs": _collect_logs,
}
