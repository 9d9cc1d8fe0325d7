"""The configuration for the supervisor, read by a process of its own: parser and option table are 2
MiB that nobody needs twice.

`waagent -daemon` reads it, and becomes the supervisor with what it read. At SIGHUP the supervisor
has `main` run, with a memory file as descriptor 1. Killed here, or hung: the settings of before
hold.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from waagent.distro import our_python
from waagent.distro.paths import Paths
from waagent.protocol.configuration import loading
from waagent.protocol.configuration.supervisor_settings import Settings, write_settings
from waagent.supervisor.roster import ROSTER

LIMIT_S = 20  # then the kernel ends us
VERBOSE = "verbose"


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
    given = (
        os.memfd_create("settings", 0)
        if hasattr(os, "memfd_create")
        else os.open(paths.run, os.O_TMPFILE | os.O_RDWR)
    )
    os.set_inheritable(given, True)
    write_settings(given, settings_of(loaded, verbose))
    argv = our_python.argv(
        "waagent.supervisor.supervisor",
        root,
        str(given),
        main_file,
        VERBOSE if verbose else "",
        *sorted(without),
        title="supervisor",
    )
    os.execv(argv[0], argv)


def main() -> None:
    """Write the settings that the files below a root make to descriptor 1: ROOT MAIN_FILE VERBOSE,
    the last two may be empty.
    """
    root, main_file, verbose = sys.argv[1:]
    signal.alarm(LIMIT_S)
    loaded = loading.load(Paths(root), Path(main_file) if main_file else None)
    write_settings(1, settings_of(loaded, verbose == VERBOSE))
