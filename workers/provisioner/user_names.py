"""Which user names of the boot DVD may become an account with the right to use sudo. Pure.

A name goes into several languages, each of which could read it as something else: sudoers (`ALL`
is everybody), passwd and shadow (fields), an argument list (options), a path (the home folder).
Each row of the tables says which names, and what they would mean there.
Source: spec/provisioning.md §5.1 Rule; sudoers(5), useradd(8).
"""

from __future__ import annotations

import re

from waagent.workers.provisioner.provisioning_error import Refused

WHERE = "UserName in ovf-env.xml on the boot DVD"
ANOTHER = "create the VM with another user name"

_PORTABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
"""What is left has no character that passwd, a shell, YAML, a path or an argument list gives a
meaning to, nor one of the first characters by which sudoers knows groups, ids and negations.
"""

# pattern of the name -> what the name would be; none of these is ever allowed
_MEANINGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"ALL\Z"), "means every user in sudoers"),
    (re.compile(r"[A-Z][A-Z0-9_]*\Z"), "is read as an alias in sudoers"),
    (re.compile(r"Defaults\Z"), "begins a line of settings in sudoers"),
    (re.compile(r"(User|Runas|Host|Cmnd|Cmd)_Alias\Z"), "begins an alias in sudoers"),
    (re.compile(r"waagent(-probe|-bus)?\Z", re.IGNORECASE), "belongs to this agent"),
    (
        re.compile(r"(nobody|nogroup|nfsnobody)\Z", re.IGNORECASE),
        "is whoever has no account: programs that strangers reach run as it",
    ),
)

# accounts that a distribution has or makes when a package is installed: Debian's base-passwd,
# Red Hat's setup, systemd's own, and the daemons of this agent's own needs
_OF_THE_SYSTEM = frozenset(
    "root toor daemon bin sys adm sync shutdown halt operator games man lp mail news uucp proxy"
    " www-data backup list irc gnats ftp dbus messagebus polkitd syslog sshd _apt utmp tty disk"
    " kmem shadow sudo wheel systemd-network systemd-resolve systemd-timesync systemd-coredump"
    " systemd-oom systemd-journal systemd-bus-proxy".split()
)


def check_user_name(name: str, *, allow_system_user: bool = False) -> str:
    """``name``, when every language that it is put into takes it for a name and nothing else.

    ``allow_system_user`` (Provisioning.AllowResetSysUser) lets names of the system's accounts
    pass, nothing besides. Raises Refused.
    """
    if _PORTABLE.match(name) is None:
        raise Refused(
            f"user name {name[:80]!r} is not a portable one",
            WHERE,
            f"{ANOTHER}: letters, digits, `_`, `.`, `-`, a letter or `_` first, at most 32",
        )
    for pattern, meaning in _MEANINGS:
        if pattern.match(name) is not None:
            raise Refused(f"user name {name!r} {meaning}", WHERE, ANOTHER)
    if name.lower() in _OF_THE_SYSTEM and not allow_system_user:
        raise Refused(f"user name {name!r} is an account of the system", WHERE, ANOTHER)
    return name
