"""The configuration for the supervisor, read by a process of its own: parser and option table are 2
MiB that nobody needs twice.

`waagent -daemon` reads it, and becomes the supervisor with what it read. At SIGHUP the supervisor
has `main` run, with a memory file as descriptor 1. Killed here, or hung: the settings of before
hold.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from waagent.distro import children
from waagent.distro.paths import Paths
from waagent.protocol.configuration import loading
from waagent.protocol.configuration.supervisor_settings import Settings, write_settings
from waagent.supervisor.roster import ROSTER

LIMIT_S = 20  # then the kernel ends us


def settings_of(loaded: loading.Loaded, verbose: bool) -> Settings:
    """What the supervisor has to know of the configuration."""
    by_worker = {row.name: loading.for_worker(loaded.values, row.keys) for row in ROSTER}
    off = frozenset(
        row.name for row in ROSTER if row.switch and loaded.values.get(row.switch) is False
    )
    return Settings(
        by_worker,
        off,
        verbose or loaded.values.get("Logs.Verbose") is True,
        tuple(map(str, loaded.findings)),
    )


def become_supervisor(
    paths: Paths, loaded: loading.Loaded, without: frozenset[str], verbose: bool
) -> None:
    """Replace this process by the supervisor, which starts lean: same pid, same descriptors. Raises
    OSError.
    """
    root = os.path.abspath(paths.root)
    main_file = next(
        (name for name in loaded.files if Path(name).parent != paths.configuration_folder), ""
    )
    reader = children.python_argv(
        "waagent.supervisor.commands.configuration_reader", "main", root, main_file, verbose
    )
    given = (
        os.memfd_create("settings", 0)
        if hasattr(os, "memfd_create")
        else os.open(paths.run, os.O_TMPFILE | os.O_RDWR)
    )
    os.set_inheritable(given, True)
    write_settings(given, settings_of(loaded, verbose))
    argv = children.python_argv(
        "waagent.supervisor.supervisor",
        "main",
        root,
        given,
        sorted(without),
        reader,
        without=("enum", "re", "fnmatch"),
    )
    # the last two are for whoever looks for them in a list of processes
    os.execv(argv[0], [*argv, "waagent", "-daemon"])


def main(root: str, main_file: str, verbose: bool) -> None:
    """Write the settings that the files below ``root`` make to descriptor 1."""
    signal.alarm(LIMIT_S)
    write_settings(
        1, settings_of(loading.load(Paths(root), Path(main_file) if main_file else None), verbose)
    )
