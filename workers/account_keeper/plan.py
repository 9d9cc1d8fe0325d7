"""Which accounts are made and which removed. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping

from waagent.protocol.base.records import Record
from waagent.protocol.bus.topics import RemoteUser

COMMENT = "JIT_Account"
"""The comment field of accounts of this kind, the predecessor's too: no other is ever removed."""
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
"""Nothing that sudoers, passwd, a path or a list of arguments reads as anything but a name:
keywords and aliases of sudoers have capitals, options begin with a dash.
"""
_OURS = re.compile(r"waagent(-probe|-bus)?|nobody|root")
_DAY_S = 86400


class Plan(Record):
    """What is to be done, in this order."""

    remove: tuple[str, ...]
    create: tuple[RemoteUser, ...]
    keep: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    """(name, why)."""
    next_end_at: int | None
    """When the first of those that stay is over, in seconds since 1970."""


def plan_accounts(wanted: Iterable[RemoteUser], present: Mapping[str, str], now: float) -> Plan:
    """``present``: the comment of each account of the machine, by name."""
    mine = {name for name, comment in present.items() if comment.split(",")[0] == COMMENT}
    create: list[RemoteUser] = []
    keep: list[str] = []
    refused: list[tuple[str, str]] = []
    ends: list[int] = []
    for user in wanted:
        if user.expires_at <= now:
            continue
        if not _NAME.fullmatch(user.name) or _OURS.fullmatch(user.name):
            refused.append((user.name[:64], "the name is not one that is made"))
        elif user.name in mine:
            keep.append(user.name)
            ends.append(user.expires_at)
        elif user.name in present:
            refused.append((user.name, "there is an account of that name already"))
        else:
            create.append(user)
            ends.append(user.expires_at)
    return Plan(
        tuple(sorted(mine - set(keep))),
        tuple(create),
        tuple(keep),
        tuple(refused),
        min(ends, default=None),
    )


def expiry_date(expires_at: int) -> str:
    """For useradd: the day after, in case nobody is left to remove it."""
    return time.strftime("%Y-%m-%d", time.gmtime(expires_at + _DAY_S))


def sudoers_text(names: Iterable[str]) -> str:
    """The file that lets these accounts use sudo, with their password."""
    lines = [f"{name} ALL=(ALL) ALL\n" for name in sorted(names)]
    return "# made by waagent for users of just-in-time access\n" + "".join(lines)
