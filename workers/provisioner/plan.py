"""What to do, decided from the request, the options and what is there. Pure: no file, no clock, no
tool.

The order of the steps (`steps.py`) is by what needs what. Host keys are begun first, since RSA
takes seconds on a small VM, and are waited for last before sshd is asked (`sshd -T` wants a key);
reading the disc, telling the platform and making the user go on meanwhile. The host name stands
before the user, since `sudo` looks it up. The marker stands when everything that a login needs is
there; the fingerprint, custom data and the consumers come after it, so that a kill repeats none of
them.
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

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\Z")  # a first `-` is an option
_HOST_NAME_MAX = 64  # Linux; RFC 1123 allows 255
OWN_UIDS = frozenset((64510, 64511, 65534))
"""The uids of `waagent` and `waagent-probe` (supervisor/roster.py), and the kernel's overflow uid,
which is nobody's by whatever name.
"""
_SYSTEM_LIMIT = 1000  # the refusal never reaches higher, whatever login.defs says (trap 30)


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
    time_limit_s: int = 1200


@dataclass(frozen=True)
class PasswdEntry:
    """One account, as /etc/passwd has it."""

    name: str
    uid: int
    gid: int
    home: str


# field of Options -> option of waagent.conf
_OPTIONS: tuple[tuple[str, str], ...] = (
    ("agent", "Provisioning.Agent"),
    ("enabled", "Provisioning.Enabled"),
    ("delete_root_password", "Provisioning.DeleteRootPassword"),
    ("regenerate_host_keys", "Provisioning.RegenerateSshHostKeyPair"),
    ("host_key_type", "Provisioning.SshHostKeyPairType"),
    ("decode_custom_data", "Provisioning.DecodeCustomData"),
    ("execute_custom_data", "Provisioning.ExecuteCustomData"),
    ("crypt_id", "Provisioning.PasswordCryptId"),
    ("salt_length", "Provisioning.PasswordCryptSaltLength"),
    ("allow_system_user", "Provisioning.AllowResetSysUser"),
    ("mount_point", "DVD.MountPoint"),
    ("ssh_folder", "OS.SshDir"),
    ("home_base", "OS.HomeDir"),
    ("shadow", "OS.PasswordPath"),
    ("sudoers_folder", "OS.SudoersDir"),
    ("client_alive_s", "OS.SshClientAliveInterval"),
    ("time_limit_s", "Provisioning.TimeLimit"),
)
_LOWERED = ("agent", "host_key_type")


def read_options(values: Mapping[str, Any]) -> Options:
    """Options out of what came with `configure`; a missing or odd value is the default."""
    taken: dict[str, Any] = {}
    for field, option in _OPTIONS:
        value, default = values.get(option), getattr(Options, field)
        if isinstance(default, bool):
            taken[field] = value if isinstance(value, bool) else default
        elif isinstance(default, int):
            taken[field] = _number(value, default)
        else:
            word = _word(value, default)
            taken[field] = word.lower() if field in _LOWERED else word
    return Options(**taken)


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


def host_name_of(name: str) -> str:
    """``name`` as it shall be set: what the platform lets customers choose, without a trailing dot.
    Raises Refused; nothing is cut off.
    """
    wanted = name[:-1] if name.endswith(".") else name
    if len(wanted) > _HOST_NAME_MAX:
        raise Refused(
            f"host name has {len(wanted)} characters",
            repr(wanted[:80]),
            f"at most {_HOST_NAME_MAX}",
        )
    if _HOST_NAME.match(wanted) is None:
        raise Refused(
            "host name has other characters than letters, digits, hyphens and inner dots",
            repr(name),
            "set it by hand, or create the VM with another one",
        )
    return wanted


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


def _word(value: Any, default: str) -> str:
    word = value.strip() if isinstance(value, str) else ""
    return default if word in ("", "None") else word


def _number(value: Any, default: int) -> int:
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
