"""Where a new process waits until it may live, and where it leaves its last words."""

from __future__ import annotations

import contextlib
import os
import socket

_STACK_BYTES = 16 * 1024


class Gate:
    """A socketpair and a memory file. Invariant: only `open` lets through; whoever waits when it is
    closed sees its end and exits.
    """

    def __init__(self, name: str) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.memory = os.memfd_create(f"stack-{name}", os.MFD_CLOEXEC)

    def open(self) -> None:
        """Let the one behind it through; who is dead already is told so by its exit."""
        with contextlib.suppress(OSError):
            self._ours.send(b"open", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """The end of both."""
        self._ours.close()
        self.theirs.close()
        os.close(self.memory)

    def told(self, limit_bytes: int) -> bytes:
        """What the one behind it said of itself; nothing when it has not."""
        with contextlib.suppress(OSError):
            return self._ours.recv(limit_bytes, socket.MSG_DONTWAIT)
        return b""

    def stack(self) -> str:
        """The stack that was written to the memory file; empty when none was."""
        return os.pread(self.memory, _STACK_BYTES, 0).decode("utf-8", "replace")
