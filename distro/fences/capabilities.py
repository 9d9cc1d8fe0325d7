"""What a process may do as root or in spite of not being root, and who it is.

Names of capabilities are those of capabilities(7) without ``CAP_``.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from waagent.distro.fences.prctl import libc, prctl
from waagent.distro.fences.process_flags import FenceError, must

_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 8, 47, 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
"""By number, linux/capability.h."""


def capability_mask(names: Iterable[str]) -> int:
    """The bits of these capabilities. Raises FenceError for a name that does not exist."""
    mask = 0
    for name in names:
        plain = name.upper()
        plain = plain[4:] if plain.startswith("CAP_") else plain
        if plain not in CAPABILITIES:
            raise FenceError(f"{name} is no capability", __name__, "use a name of capabilities(7)")
        mask |= 1 << CAPABILITIES.index(plain)
    return mask


def keep_capabilities(names: Iterable[str]) -> None:
    """Effective and permitted become ``names``, as far as they were permitted; inheritable and
    ambient become empty.

    The bounding set stays, so that a tool executed by uid 0 has what tools expect.
    """
    permitted = capability_mask(names) & _permitted()
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)  # EINVAL before Linux 4.3: there is none
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    must(libc.capset(head, sets) == 0, "capabilities cannot be reduced")


def keep_only(names: Iterable[str]) -> None:
    """Nothing but ``names``, for this process and all that it executes: the bounding set too."""
    kept = tuple(names)
    mask, number = capability_mask(kept), 0
    # until EINVAL: a newer kernel has more of them than our table
    while prctl(_PR_CAPBSET_READ, number) >= 0:
        if not mask >> number & 1:
            must(prctl(_PR_CAPBSET_DROP, number) == 0, "the bounding set cannot be reduced")
        number += 1
    keep_capabilities(kept)


def _permitted() -> int:
    return _capability_sets()[1]


def _capability_sets() -> tuple[int, int]:
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    must(libc.capget(head, sets) == 0, "capabilities cannot be read")
    low_effective, low_permitted, _, high_effective, high_permitted, _ = struct.unpack(
        "=6I", sets.raw[:24]
    )
    return low_effective | high_effective << 32, low_permitted | high_permitted << 32


def capabilities_of_self() -> list[str]:
    """Names of what is effective now."""
    effective = _capability_sets()[0]
    return [name for number, name in enumerate(CAPABILITIES) if effective >> number & 1]


def drop_to(uid: int, gid: int, groups: Iterable[int], keep: Iterable[str] = ()) -> None:
    """Become ``uid``, for good, with just the capabilities ``keep``. Ambient is not used: what is
    executed has none of them.
    """
    kept = tuple(keep)
    must(prctl(_PR_SET_KEEPCAPS, 1) == 0, "capabilities cannot be kept over a change of uid")
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    must(prctl(_PR_SET_KEEPCAPS, 0) == 0, "keeping of capabilities cannot be ended")
    keep_capabilities(kept)
