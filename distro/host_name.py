"""The VM's name: in the file that the distribution reads at boot, and in the kernel now. Source:
spec/provisioning.md §10.1.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from waagent.distro import distributions
from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError

_HOSTNAMECTL_LIMIT_S = 10.0  # early at boot it may wait for a D-Bus that does not come (trap 22)
_TOOL_LIMIT_S = 20.0
_LOCAL_ADDRESS = "127.0.1.1"  # as Debian does it: 127.0.0.1 stays localhost
HOSTS_MARK = "  # waagent"

Run = Callable[..., Finished]


def set_host_name(paths: Paths, family: Family, run: Run, name: str) -> None:
    """Make ``name`` (`plan.host_name_of`) the host name, now and after a reboot."""
    if family.host_name == distributions.NO_HOSTNAME:
        return
    if family.host_name != distributions.HOSTNAMECTL or not _by_hostnamectl(paths, run, name):
        _in_file(paths, family, run, name)
    if paths.root == Path("/") and socket.gethostname() != name:
        socket.sethostname(name)


def resolve_locally(paths: Paths, name: str) -> None:
    """Have ``name`` found without the network, as sudo wants it: a line of ours in /etc/hosts, in
    the place of an older one, unless another line has the name.
    """
    file = paths.under("/etc/hosts")
    present = file.read_text("utf-8", "surrogateescape") if file.exists() else ""
    write_text(file, with_local_name(present, name))


def with_local_name(text: str, name: str) -> str:
    """The text of /etc/hosts in which ``name``, and its first label, stand."""
    lines = [line for line in text.splitlines() if not line.endswith(HOSTS_MARK)]
    known = {word.lower() for line in lines for word in line.partition("#")[0].split()[1:]}
    short = name.partition(".")[0]
    wanted = [word for word in dict.fromkeys((name, short)) if word.lower() not in known]
    if wanted and not short.isdigit():
        lines.append(f"{_LOCAL_ADDRESS}\t{' '.join(wanted)}{HOSTS_MARK}")
    elif name.lower() not in known:
        lines.append(f"{_LOCAL_ADDRESS}\t{name}{HOSTS_MARK}")
    return "".join(line + "\n" for line in lines)


def _by_hostnamectl(paths: Paths, run: Run, name: str) -> bool:
    if not paths.under("/run/systemd/system").is_dir():
        return False
    try:
        run(
            ["hostnamectl", "set-hostname", "--static", "--", name], deadline_s=_HOSTNAMECTL_LIMIT_S
        )
    except ToolError:
        return False  # the file does as well
    return True


def _in_file(paths: Paths, family: Family, run: Run, name: str) -> None:
    method = family.host_name
    if method in (
        distributions.SYSCONFIG_NETWORK,
        distributions.RC_CONF,
        distributions.CONF_D_HOSTNAME,
    ):
        key = "HOSTNAME" if method == distributions.SYSCONFIG_NETWORK else "hostname"
        value = name if method == distributions.SYSCONFIG_NETWORK else f'"{name}"'
        file = paths.under(method)
        present = file.read_text("utf-8", "surrogateescape") if file.exists() else ""
        write_text(file, with_setting(present, key, value))
        return
    plain = (
        method
        if method in (distributions.ETC_MYNAME, distributions.ETC_HOSTNAME_CAPITAL)
        else distributions.ETC_HOSTNAME
    )
    write_text(paths.under(plain), name + "\n")
    if method == distributions.UCI:
        run(["uci", "set", f"system.@system[0].hostname={name}"], deadline_s=_TOOL_LIMIT_S)
        run(["uci", "commit", "system"], deadline_s=_TOOL_LIMIT_S)


def with_setting(text: str, key: str, value: str) -> str:
    """The text of a shell-like file with one line ``key=value``: the last one replaced, or added at
    the end.
    """
    lines = text.splitlines()
    pattern = re.compile(rf"\s*{re.escape(key)}=")
    at = max((number for number, line in enumerate(lines) if pattern.match(line)), default=None)
    if at is None:
        lines.append(f"{key}={value}")
    else:
        lines[at] = f"{key}={value}"
    return "\n".join(lines) + "\n"


def write_text(file: Path, text: str) -> None:
    """Make ``text`` the content of a file that a container may have bound; nothing when it is so
    already. Raises OSError.
    """
    data = text.encode("utf-8", "surrogateescape")
    if file.is_file() and file.read_bytes() == data:
        return
    try:
        write_atomic(file, data, mode=0o644)
    except OSError as error:
        # a container binds this file: it can be written, not replaced
        if error.errno != errno.EBUSY:
            raise
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(descriptor, "wb") as stream:
            stream.write(data)
