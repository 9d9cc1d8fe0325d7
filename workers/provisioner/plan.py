"""What to do, decided from the request, the options and what is there. Pure: no file, no clock, no
tool.

Source: spec/provisioning.md §1, §4.3 Rule, §5, §6, §10.1, §13.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from waagent.distro.distributions import Family
from waagent.workers.provisioner.provisioning_error import Refused
from waagent.workers.provisioner.user_names import ANOTHER, WHERE

# who provisions
OURSELVES, CLOUD_INIT, NOBODY = "ourselves", "cloud-init", "nobody"

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")
_HOST_NAME_MAX = 64  # Linux; RFC 1123 allows 255
OWN_UIDS = frozenset((64510, 64511, 65534))
"""The uids of `waagent` and `waagent-probe` (supervisor/roster.py), and the kernel's overflow uid,
which is nobody's by whatever name.
"""
_SYSTEM_LIMIT = 1000  # the refusal never reaches higher, whatever login.defs says (trap 30)
_KEY_TYPE = re.compile(
    r"(ssh-[a-z0-9-]+|ecdsa-sha2-[a-z0-9-]+|sk-(?:ssh|ecdsa)-[a-z0-9-]+)(@[a-z0-9.-]+)?\Z"
)
_KEY_WORD = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}\Z")


@dataclass(frozen=True)
class Options:
    """The options of waagent.conf that provisioning reads, typed."""

    agent: str = "auto"
    enabled: bool = True
    delete_root_password: bool = False
    regenerate_host_keys: bool = True
    host_key_type: str = "rsa"
    decode_custom_data: bool = False
    execute_custom_data: bool = False
    crypt_id: str = "6"
    salt_length: int = 10
    allow_system_user: bool = False
    mount_point: str = "/mnt/cdrom/secure"
    ssh_folder: str = "/etc/ssh"
    home_base: str = "/home"
    shadow: str = ""
    sudoers_folder: str = ""
    client_alive_s: int = 180


@dataclass(frozen=True)
class PasswdEntry:
    """One account, as /etc/passwd has it."""

    name: str
    uid: int
    gid: int
    home: str


def read_options(values: Mapping[str, Any]) -> Options:
    """Options out of what came with `configure`; a missing or odd value is the default."""
    return Options(
        agent=_word(values, "Provisioning.Agent", "auto").lower(),
        enabled=_flag(values, "Provisioning.Enabled", True),
        delete_root_password=_flag(values, "Provisioning.DeleteRootPassword", False),
        regenerate_host_keys=_flag(values, "Provisioning.RegenerateSshHostKeyPair", True),
        host_key_type=_word(values, "Provisioning.SshHostKeyPairType", "rsa").lower(),
        decode_custom_data=_flag(values, "Provisioning.DecodeCustomData", False),
        execute_custom_data=_flag(values, "Provisioning.ExecuteCustomData", False),
        crypt_id=_word(values, "Provisioning.PasswordCryptId", "6"),
        salt_length=_number(values, "Provisioning.PasswordCryptSaltLength", 10),
        allow_system_user=_flag(values, "Provisioning.AllowResetSysUser", False),
        mount_point=_word(values, "DVD.MountPoint", "/mnt/cdrom/secure"),
        ssh_folder=_word(values, "OS.SshDir", "/etc/ssh"),
        home_base=_word(values, "OS.HomeDir", "/home"),
        shadow=_word(values, "OS.PasswordPath", ""),
        sudoers_folder=_word(values, "OS.SudoersDir", ""),
        client_alive_s=_number(values, "OS.SshClientAliveInterval", 180),
    )


def who_provisions(options: Options, cloud_init_enabled: bool) -> str:
    """OURSELVES, CLOUD_INIT or NOBODY (§1.2, configuration.md trap 10). Raises Refused when two
    would work at once.
    """
    if options.agent == "disabled":
        return NOBODY
    if options.agent == "cloud-init":
        return CLOUD_INIT
    if options.agent == "waagent":
        if cloud_init_enabled:
            raise Refused(
                "cloud-init is enabled and would provision too",
                "Provisioning.Agent=waagent",
                "disable cloud-init, or set Provisioning.Agent=auto",
            )
        return OURSELVES
    if cloud_init_enabled:
        return CLOUD_INIT
    return OURSELVES if options.enabled else NOBODY


def check_host_name(name: str) -> str:
    """``name``, when RFC 1123 allows it and the kernel can hold it. Raises Refused; nothing is cut
    off.
    """
    labels = name.split(".")
    if len(name) > _HOST_NAME_MAX:
        raise Refused(
            f"host name has {len(name)} characters", repr(name[:80]), f"at most {_HOST_NAME_MAX}"
        )
    if not all(_LABEL.match(label) for label in labels) or all(
        character.isdigit() for character in labels[-1]
    ):
        raise Refused(
            "host name is not one by RFC 1123",
            repr(name),
            "letters, digits and inner hyphens, labels of 1 to 63 characters",
        )
    return name


def refuse_system_user(
    name: str, present: PasswdEntry | None, uid_minimum: int, family: Family, options: Options
) -> None:
    """Raise Refused when the account that is there belongs to the system or to this agent (§5.1
    Rule): before any change, password or not.

    Provisioning.AllowResetSysUser lets the system's pass.
    """
    if present is None:
        return
    if present.uid in OWN_UIDS:
        raise Refused(
            f"user name {name!r} is an account of this agent (uid {present.uid})", WHERE, ANOTHER
        )
    if options.allow_system_user or name == family.system_user_exception:
        return
    if present.uid == 0:
        raise Refused(f"user name {name!r} is the superuser (uid 0)", WHERE, ANOTHER)
    if present.uid < min(_SYSTEM_LIMIT, uid_minimum):
        raise Refused(
            f"user name {name!r} is a system user (uid {present.uid})",
            WHERE,
            f"{ANOTHER}, or set Provisioning.AllowResetSysUser=y",
        )


def uid_minimum(login_defs: str | None, family: Family) -> int:
    """The first uid of people: UID_MIN of the text of login.defs, else the distribution's."""
    for line in (login_defs or "").splitlines():
        words = line.split()
        if (
            line.startswith("UID_MIN")
            and len(words) > 1
            and words[0] == "UID_MIN"
            and words[1].isdigit()
        ):
            return int(words[1])
    return family.uid_minimum


def sudoers_text(present: str, user_name: str, has_password: bool) -> str:
    """The content of our file in sudoers.d: one line for each user, the others' kept (§5.5
    Rule).
    """
    others = [
        line for line in present.splitlines() if line.strip() and line.split()[0] != user_name
    ]
    rights = "ALL" if has_password else "NOPASSWD: ALL"
    return "\n".join([*others, f"{user_name} ALL=(ALL) {rights}"]) + "\n"


def check_public_key(value: str) -> str:
    """One line of authorized_keys. Options before the key type are kept. Raises Refused when it is
    none (trap 7).
    """
    line = " ".join(value.split())
    words = line.split(" ")
    for at, word in enumerate(words[:-1]):
        if _KEY_TYPE.match(word) and _KEY_WORD.match(words[at + 1]):
            return line
    raise Refused(
        "public key is not in OpenSSH's form",
        repr(line[:40]),
        "it looks like: ssh-ed25519 AAAA… comment",
    )


def wants_password_login(
    disable: bool | None, has_password: bool, deployed_keys: int
) -> bool | None:
    """True: allow logins by password, False: refuse them, None: leave sshd as the image has it
    (traps 1 and 2).

    The platform says `false` also when the customer did not choose; without a password there is
    nothing to allow, and a hardened image stays hardened.
    """
    if disable is None:
        return False if deployed_keys else None
    if disable:
        return False
    return True if has_password else None


def _word(values: Mapping[str, Any], name: str, default: str) -> str:
    value = values.get(name)
    return (
        value.strip()
        if isinstance(value, str) and value.strip() and value.strip() != "None"
        else default
    )


def _flag(values: Mapping[str, Any], name: str, default: bool) -> bool:
    value = values.get(name)
    return value if isinstance(value, bool) else default


def _number(values: Mapping[str, Any], name: str, default: int) -> int:
    value = values.get(name)
    if isinstance(value, str) and value.strip().isdigit():
        return int(value.strip())
    return value if isinstance(value, int) and not isinstance(value, bool) else default
