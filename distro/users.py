"""Numbers of groups by name."""

from __future__ import annotations

import grp


def gid_of(name: str, otherwise: int) -> int:
    """The gid of the group ``name``, or ``otherwise`` where there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return otherwise
