"""cloud-init: whether it provisions, and when it is done. Where it does, we touch nothing.

Source: spec/provisioning.md §1.2 to §1.5 with the Rule, trap 19.
"""

from __future__ import annotations

from collections.abc import Callable

from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError

_TOOL_LIMIT_S = 10.0
_PROGRAMS = ("/usr/bin/cloud-init", "/usr/local/bin/cloud-init", "/bin/cloud-init")
_UNITS = ("cloud-init-local.service", "cloud-init-main.service")
_ENABLED = ("enabled", "enabled-runtime", "generated")
_COMMAND_LINE_LIMIT_BYTES = 4096

Run = Callable[..., Finished]


def is_enabled(paths: Paths, run: Run) -> bool:
    """Whether cloud-init is installed and will run at this boot."""
    if not any(paths.under(program).exists() for program in _PROGRAMS):
        return False
    if paths.under(
        "/etc/cloud/cloud-init.disabled"
    ).exists() or "cloud-init=disabled" in _command_line(paths):
        return False
    if any(_says(run, ["systemctl", "is-enabled", unit], _ENABLED) for unit in _UNITS):
        return True
    if any(paths.under("/etc/runlevels").glob("*/cloud-init*")):  # OpenRC, started or not yet
        return True
    return _says(run, ["service", "cloud-init", "status"], ())


def document(paths: Paths) -> bytes | None:
    """The ovf-env.xml that cloud-init leaves for us; None while it has not."""
    try:
        data = (paths.library / "ovf-env.xml").read_bytes()
    except OSError:
        return None
    return data or None


def _says(run: Run, argv: list[str], wanted: tuple[str, ...]) -> bool:
    try:
        finished = run(argv, deadline_s=_TOOL_LIMIT_S, check=False)
    except ToolError:
        return False  # there is no such tool
    return finished.status == 0 and (
        not wanted or finished.stdout.decode("utf-8", "replace").strip() in wanted
    )


def _command_line(paths: Paths) -> list[str]:
    try:
        with paths.under("/proc/cmdline").open("rb") as file:
            return file.read(_COMMAND_LINE_LIMIT_BYTES).decode("ascii", "replace").split()
    except OSError:
        return []
