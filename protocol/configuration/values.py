"""From the text of one option to its typed value, and the rules that bind options together. Pure.

An invalid value is a problem with a text, never an exception that stops the agent: the caller takes
the default. Source: spec/configuration.md, sections 2.2, 2.3, 3.1, 10. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from waagent.protocol.base.records import Record
from waagent.protocol.configuration.lines import shown
from waagent.protocol.configuration.options import NUMBER, SWITCH, TRISTATE, Option, Value

YES = frozenset(("y", "yes", "true", "1", "on"))
NO = frozenset(("n", "no", "false", "0", "off"))

EMPTIED_FOLDERS = ("Lib.Dir", "Extension.LogDir")
"""Options whose folder a deprovision empties: a system folder there would destroy the system."""

SYSTEM_FOLDERS = frozenset(
    (
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/media",
        "/mnt",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/usr/bin",
        "/usr/lib",
        "/usr/lib64",
        "/usr/libexec",
        "/usr/local",
        "/usr/local/bin",
        "/usr/local/etc",
        "/usr/local/lib",
        "/usr/local/sbin",
        "/usr/sbin",
        "/usr/share",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/run",
        "/var/spool",
        "/var/tmp",
        "/var/lib/cloud",
        "/var/lib/dhcp",
        "/var/lib/dpkg",
        "/var/lib/rpm",
        "/var/lib/systemd",
        "/etc/ssh",
        "/etc/waagent",
        "/run/waagent",
        "/var/cache/waagent",
    )
)
_NEVER_MOUNTED_OVER = SYSTEM_FOLDERS - {"/mnt", "/media", "/srv", "/opt"}
_TREES = ("/dev/", "/proc/", "/sys/", "/etc/", "/boot/", "/bin/", "/sbin/")


class Invalid(Exception):
    """A value that cannot be used: the problem and the remedy."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


class Remark(Record):
    """Something wrong between options."""

    key: str
    problem: str
    remedy: str


def typed(option: Option, text: str) -> Value:
    """``text`` as the value of ``option``. Raises Invalid."""
    if option.kind == SWITCH:
        return _switch(text)
    if option.kind == TRISTATE:
        return "auto" if text.lower() == "auto" else _switch(text, " or auto")
    if option.kind == NUMBER:
        return _number(option, text)
    return _text(option, text)


def _switch(text: str, more: str = "") -> bool:
    word = text.lower()
    if word in YES:
        return True
    if word in NO:
        return False
    raise Invalid(f"{shown(text)} is neither y nor n", f"write y or n{more}")


def _number(option: Option, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise Invalid(
            f"{shown(text)} is no number", f"write digits, {option.lowest} to {option.highest}"
        )
    number = int(text)
    if not option.lowest <= number <= option.highest:
        raise Invalid(
            f"{text} is out of range", f"write a number from {option.lowest} to {option.highest}"
        )
    return number


def _text(option: Option, text: str) -> str | None:
    if not text:
        if option.default is None:
            return None
        raise Invalid("it is empty", "write a value, or remove the line")
    if option.pattern and not re.fullmatch(option.pattern, text):
        remedy = (
            "write None, with a capital N"
            if text.lower() in ("none", "null", "nil")
            else f"write {option.expected}"
        )
        raise Invalid(f"{_without_login(text)} is not {option.expected}", remedy)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise Invalid(f"{shown(text)} has control characters", "write plain text")
    if option.expected == "an absolute path":
        return _path(option, text)
    return text


def _without_login(text: str) -> str:
    """The text for a message; one that may hold a password (user:password@host) is not repeated."""
    return "a value with @" if "@" in text else shown(text)


def _path(option: Option, text: str) -> str:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Invalid(f"{shown(text)} has .. in it", "write the path without ..")
    path = "/" + "/".join(parts)
    if option.name in EMPTIED_FOLDERS and (path in SYSTEM_FOLDERS or path.startswith(_TREES)):
        raise Invalid(
            f"{path} belongs to the system, deprovisioning would empty it",
            "name a folder of the agent's own",
        )
    if option.name == "ResourceDisk.MountPoint" and (
        path in _NEVER_MOUNTED_OVER or path.startswith(_TREES)
    ):
        raise Invalid(f"{path} would be hidden by the disk", "name a folder such as /mnt/resource")
    return path


def default_of(option: Option, values: Mapping[str, Value]) -> Value:
    """What ``option`` is when the file does not say."""
    return values.get(option.follows, option.default) if option.follows else option.default


def settle(values: dict[str, Value], given: frozenset[str]) -> list[Remark]:
    """Bring options that depend on each other into agreement, in place; what an operator should
    know of it.
    """
    remarks: list[Remark] = []
    if values["HttpProxy.Host"] is not None and values["HttpProxy.Port"] is None:
        remarks.append(
            Remark(
                "HttpProxy.Host",
                "HttpProxy.Port is missing, no proxy is used",
                "add HttpProxy.Port=NUMBER",
            )
        )
    if values["HttpProxy.Host"] is None and values["HttpProxy.Port"] is not None:
        remarks.append(
            Remark(
                "HttpProxy.Port",
                "HttpProxy.Host is missing, no proxy is used",
                "add HttpProxy.Host=NAME",
            )
        )
    if values["ResourceDisk.EnableSwap"] and not values["ResourceDisk.SwapSizeMB"]:
        remarks.append(
            Remark(
                "ResourceDisk.EnableSwap",
                "ResourceDisk.SwapSizeMB is 0, there is no swap",
                "set ResourceDisk.SwapSizeMB",
            )
        )
    remarks.extend(_settle_provisioning(values, given))
    return remarks


def _settle_provisioning(values: dict[str, Value], given: frozenset[str]) -> list[Remark]:
    """Provisioning.Agent wins over Provisioning.Enabled when it is present; without it Enabled=n
    leaves the VM to cloud-init, where that is enabled.
    """
    remarks: list[Remark] = []
    if "Provisioning.Agent" not in given:
        return remarks
    wanted = values["Provisioning.Agent"] != "disabled"
    if "Provisioning.Enabled" in given and values["Provisioning.Enabled"] is not wanted:
        remarks.append(
            Remark(
                "Provisioning.Enabled",
                "Provisioning.Agent is present and wins",
                "remove one of the two",
            )
        )
    values["Provisioning.Enabled"] = wanted
    return remarks


def printed(value: Value) -> str:
    """A value as `-show-configuration` prints it: True, False, None, digits, or the text itself."""
    return str(value)
