"""os-release(5): what a distribution says of itself. Standard library only."""

from __future__ import annotations

from waagent.distro.paths import Paths

_PLACES = ("/etc/os-release", "/usr/lib/os-release")  # the second for images without the first
_LIMIT_BYTES = 64 * 1024


def read_os_release(paths: Paths) -> dict[str, str]:
    """Its assignments, by name; empty when there is no such file."""
    for place in _PLACES:
        try:
            with paths.under(place).open("rb") as file:
                return parse_os_release(file.read(_LIMIT_BYTES).decode("utf-8", "replace"))
        except OSError:
            continue
    return {}


def parse_os_release(text: str) -> dict[str, str]:
    """The assignments in the text, values as a shell would read them; lines of another form are
    left out.
    """
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and name and not name.startswith("#"):
            values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    """The forms that occur; shlex would cost 1 MiB."""
    if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
        return value[1 : value.find(value[0], 1)]
    return value.split(" ")[0].strip("'\"")
