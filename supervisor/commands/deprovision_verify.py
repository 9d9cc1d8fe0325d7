"""Looks for what an image must not hand to the VMs made of it; changes nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from waagent.distro import root_password
from waagent.distro.distributions import Family
from waagent.distro.host_name import HOSTS_MARK
from waagent.distro.paths import Paths
from waagent.distro.sshd_settings import text_of
from waagent.protocol.base.records import Record
from waagent.protocol.configuration.options import Value
from waagent.supervisor.commands import image_places as places

_PRIVATE_KEYS = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "identity")
_KEY_BEGIN = "PRIVATE KEY-----"


class Leftover(Record):
    """One thing that was found."""

    path: str
    about: str


def leftovers(paths: Paths, family: Family, values: Mapping[str, Value]) -> list[Leftover]:
    """Everything found below the root prefix, each path once."""
    found: dict[str, str] = {}
    for path, about in (
        *_of_the_system(paths, values),
        *_of_the_agent(paths, family, values),
        *_of_people(paths),
    ):
        found.setdefault(path, about)
    return [Leftover(path, about) for path, about in found.items()]


def _of_the_system(paths: Paths, values: Mapping[str, Value]) -> Iterable[tuple[str, str]]:
    for pattern, about in (
        (f"{values['OS.SshDir']}/ssh_host_*key*", "SSH host key"),
        *((lease, "DHCP lease") for lease in places.CACHED_LEASES),
        *((file, "state of cloud-init") for file in places.CLOUD_INIT),
        *((file, "key of OpenBSD") for file in places.OF_OPENBSD),
        *((file, "name of a network card") for file in places.RULES),
    ):
        for path in places.globbed(paths, (pattern,)):
            yield path, about
    for file in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        place = paths.under(file)
        if text_of(place).strip() not in ("", "uninitialized") and not place.is_symlink():
            yield str(place), "id of this machine"
    resolver = paths.under("/etc/resolv.conf")
    if not resolver.is_symlink() and "nameserver" in text_of(resolver):
        yield str(resolver), "nameserver of this network"
    for file in places.TRUNCATED:
        if text_of(paths.under(file)):
            yield str(paths.under(file)), "what the hypervisor was told"


def _of_the_agent(
    paths: Paths, family: Family, values: Mapping[str, Value]
) -> Iterable[tuple[str, str]]:
    for folder, about in (
        (paths.library, "state of the agent"),
        (paths.handler_logs, "logs of extensions"),
        (paths.cache, "packages of extensions"),
    ):
        if folder.is_dir():
            for name in sorted(os.listdir(folder)):
                yield str(folder / name), about
    for path in places.globbed(paths, places.LOGS):
        yield path, "log of the agent"
    for file in places.sshd_files_of_ours(paths, str(values["OS.SshDir"])):
        yield str(file), "settings of sshd for one user"
    if HOSTS_MARK in text_of(paths.under("/etc/hosts")):
        yield str(paths.under("/etc/hosts")), "name of this VM"
    sudoers = paths.under(str(values.get("OS.SudoersDir") or family.sudoers_folder)) / "waagent"
    if text_of(sudoers).strip():
        yield str(sudoers), "right of a user to use sudo"
    if values["Provisioning.DeleteRootPassword"] and not root_password.is_locked(
        paths, family, str(values.get("OS.PasswordPath") or "")
    ):
        yield str(paths.under(family.shadow)), "password of root"


def _of_people(paths: Paths) -> Iterable[tuple[str, str]]:
    everybody = [*places.homes(paths), ("root", paths.under("/root"))]
    known = {home for _, home in everybody}
    strays = [Path(path) for path in sorted(glob.glob(str(paths.under("/home/*"))))]
    everybody += [(home.name, home) for home in strays if home not in known and home.is_dir()]
    for name, home in dict.fromkeys(everybody):
        for history in places.HISTORIES_OF_USERS:
            if (home / history).is_file() and (home / history).stat().st_size:
                yield str(home / history), f"history of {name}"
        for file in ("authorized_keys", "authorized_keys2"):
            if text_of(home / ".ssh" / file).strip():
                yield str(home / ".ssh" / file), f"keys that log in as {name}"
        for file in _PRIVATE_KEYS:
            if _KEY_BEGIN in text_of(home / ".ssh" / file):
                yield str(home / ".ssh" / file), f"private key of {name}"
