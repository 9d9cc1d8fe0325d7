"""What a process tells the kernel about itself: with whom it dies, who may look into it."""

from __future__ import annotations

import ctypes
import os

from waagent.distro.fences.prctl import prctl
from waagent.protocol.base.errors import ExplainedError

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


class FenceError(ExplainedError):
    """A fence that must stand could not be put up: what, where, remedy."""


def must(done: bool, what: str) -> None:
    """Raise FenceError with the reason in errno unless ``done``."""
    if not done:
        number = ctypes.get_errno()
        raise FenceError(
            what,
            os.strerror(number),
            "look at the roster's row, and at what the service manager took away",
        )


def set_parent_death_signal(number: int) -> None:
    """Get this signal when the parent (the thread that forked us) dies. Every later change of uid
    or gid takes it away.
    """
    must(prctl(_PR_SET_PDEATHSIG, number) == 0, "the parent's death cannot be signalled")


def set_dumpable(dumpable: bool) -> None:
    """False: no core dump, and no ptrace by our own uid."""
    must(prctl(_PR_SET_DUMPABLE, int(dumpable)) == 0, "core dumps cannot be switched")


def set_no_new_privileges() -> None:
    """No execve grants anything from now on."""
    must(prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0, "no_new_privs cannot be set")
