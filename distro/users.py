"""Numbers of accounts and groups by name."""

from __future__ import annotations

import grp
import pwd


def uid_of(name: str, otherwise: int) -> int:
    """The uid of the account ``name``, or ``otherwise`` where there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return otherwise


def gid_of(name: str, otherwise: int) -> int:
    """The gid of the group ``name``, or ``otherwise`` where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return otherwise
