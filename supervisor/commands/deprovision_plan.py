"""What `waagent -deprovision` does to a system: a list of steps, made by looking at it; nothing is
changed here.

The plan is what is printed, what is asked about, and what is carried out, so that the three cannot
differ. Everything works below a root prefix, for images that are mounted somewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from waagent.distro import boot_marks, root_password
from waagent.distro.distributions import Family
from waagent.distro.host_name import HOSTS_MARK
from waagent.distro.paths import Paths
from waagent.distro.sshd_settings import BEGIN, text_of
from waagent.protocol.base.records import Record
from waagent.protocol.configuration.options import Value
from waagent.supervisor.commands.image_places import (
    AGENT_DROP_INS,
    CACHED_LEASES,
    CLOUD_INIT,
    HISTORIES,
    LOGS,
    OF_OPENBSD,
    RULES,
    TRUNCATED,
    globbed,
    sshd_files_of_ours,
)

# what a step does
MARK, STOP, REMOVE, EMPTY, TRUNCATE, NAME, PASSWORD, USER, SUDOERS, SSHD, HOSTS, RUN, KEEP = (
    "mark",
    "stop",
    "remove",
    "empty folder",
    "truncate",
    "set host name",
    "lock password",
    "delete user",
    "remove sudo right",
    "remove our lines",
    "remove our line",
    "run",
    "keep",
)
NO_NAME = "localhost.localdomain"


class Step(Record):
    """One change; ``target`` is a path, a name, or the words of a command."""

    action: str
    target: str
    about: str
    is_secret: bool = False
    """Left behind it would hand a secret, or a way in, to whoever starts the image."""


class Wanted(Record):
    """What the command line, the configuration and the saved request say."""

    values: Mapping[str, Value]
    with_user: bool
    user_name: str
    """Who was provisioned; empty when nobody knows."""


def plan_steps(paths: Paths, family: Family, wanted: Wanted) -> list[Step]:
    """Everything to do, in its order: the agent is kept from provisioning anew first, the user's
    account goes before the file that names it.
    """
    steps: list[Step] = []
    if boot_marks.is_running_system(paths):
        about = "the agent provisions nothing until the next boot"
        steps.append(Step(MARK, str(boot_marks.deprovisioned(paths)), about, True))
        steps.append(Step(STOP, "waagent", "the agent's service is stopped"))
    steps += _ssh(paths, wanted)
    steps += [Step(REMOVE, path, "cached DHCP lease") for path in globbed(paths, CACHED_LEASES)]
    steps.append(Step(NAME, NO_NAME, "the next VM gets its own name"))
    if HOSTS_MARK in text_of(paths.under("/etc/hosts")):
        steps.append(Step(HOSTS, str(paths.under("/etc/hosts")), "our line for the old name"))
    if wanted.values["Provisioning.DeleteRootPassword"] and not root_password.is_locked(
        paths, family, _text(wanted.values, "OS.PasswordPath")
    ):
        steps.append(Step(PASSWORD, "root", "nobody logs in as root by password", True))
    if wanted.with_user:
        steps += _user(paths, family, wanted)
    steps += _state(paths, wanted)
    steps += _resolver(paths)
    steps += _identity(paths)
    return steps


def _ssh(paths: Paths, wanted: Wanted) -> Iterable[Step]:
    folder = _text(wanted.values, "OS.SshDir")
    keys = globbed(paths, (f"{folder}/ssh_host_*key*",))
    if wanted.values["Provisioning.RegenerateSshHostKeyPair"]:
        yield from (Step(REMOVE, path, "SSH host key", True) for path in keys)
    elif keys:
        about = "SSH host keys: Provisioning.RegenerateSshHostKeyPair is n"
        yield Step(KEEP, f"{paths.under(folder)}/ssh_host_*", about)
    for file in sshd_files_of_ours(paths, folder):
        if text_of(file).startswith(BEGIN) and file.name != "sshd_config":
            yield Step(REMOVE, str(file), "our settings of sshd")
        else:
            yield Step(SSHD, str(file), "our settings of sshd")


def _user(paths: Paths, family: Family, wanted: Wanted) -> Iterable[Step]:
    if not wanted.user_name:
        yield Step(KEEP, "the user", f"no {paths.library}/ovf-env.xml says who was provisioned")
        return
    yield Step(USER, wanted.user_name, "with the whole home folder", True)
    folder = _text(wanted.values, "OS.SudoersDir") or family.sudoers_folder
    file = paths.under(folder) / "waagent"
    if wanted.user_name in text_of(file).split():
        yield Step(SUDOERS, f"{file}: {wanted.user_name}", "the user's right to use sudo")


def _state(paths: Paths, wanted: Wanted) -> Iterable[Step]:
    for folder, about in (
        (paths.library, "state of the agent and of extensions, certificates, custom data"),
        (paths.handler_logs, "logs of extensions"),
        (paths.cache, "packages of extensions"),
    ):
        if folder.is_dir() and any(folder.iterdir()):
            yield Step(EMPTY, str(folder), about, folder != paths.handler_logs)
    yield from (Step(REMOVE, path, "log") for path in globbed(paths, LOGS))
    yield from (Step(REMOVE, path, "history of root", True) for path in globbed(paths, HISTORIES))
    yield from (Step(REMOVE, path, "key of OpenBSD", True) for path in globbed(paths, OF_OPENBSD))
    for path in globbed(paths, TRUNCATED):
        if os.path.getsize(path):
            yield Step(TRUNCATE, path, "what the hypervisor was told")
    if boot_marks.is_running_system(paths) and paths.under("/usr/bin/cloud-init").exists():
        yield Step(RUN, "cloud-init clean --logs --seed", "state of cloud-init")
    for path in globbed(paths, CLOUD_INIT):
        yield Step(REMOVE, path, "state of cloud-init", "/lib/" in path)
    yield from (
        Step(REMOVE, path, "unit of the agent's") for path in globbed(paths, AGENT_DROP_INS)
    )
    yield from (Step(REMOVE, path, "names of network cards") for path in globbed(paths, RULES))


def _resolver(paths: Paths) -> Iterable[Step]:
    """Whoever owns resolv.conf through a link writes it anew, and could not without the link."""
    file = paths.under("/etc/resolv.conf")
    if file.is_symlink():
        about = f"a link to {os.readlink(file)}, whose owner writes it at each boot"
        yield Step(KEEP, str(file), about)
        for path in globbed(paths, ("/etc/resolvconf/resolv.conf.d/original",)):
            yield Step(REMOVE, path, "nameserver configuration")
        tail = paths.under("/etc/resolvconf/resolv.conf.d/tail")
        if text_of(tail):
            yield Step(TRUNCATE, str(tail), "nameserver configuration")
    elif file.is_file() and text_of(file):
        yield Step(REMOVE, str(file), "nameserver configuration")


def _identity(paths: Paths) -> Iterable[Step]:
    file = paths.under("/etc/machine-id")
    if text_of(file):
        yield Step(TRUNCATE, str(file), "the next VM gets an id of its own")
    other = paths.under("/var/lib/dbus/machine-id")
    if other.is_file() and not other.is_symlink():
        yield Step(REMOVE, str(other), "the next VM gets an id of its own")


def _text(values: Mapping[str, Value], option: str) -> str:
    value = values.get(option)
    return value if isinstance(value, str) else ""


def user_of(paths: Paths) -> str:
    """The user that was provisioned, by the saved request or by our own note; empty when neither
    says.
    """
    from waagent.protocol.ovf import FILE_NAME, OvfError, read_ovf  # lxml, only where it is needed

    for folder in (paths.library, Path(paths.under("/var/lib/waagent"))):
        try:
            return read_ovf((folder / FILE_NAME).read_bytes()).user_name
        except (OSError, OvfError):
            continue
    return ""
