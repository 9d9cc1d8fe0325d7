"""Sockets of the system's kind: listening ones with an owner and a mode, and signals that arrive as bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

_BACKLOG = 64


def listen(path: Path, mode: int, group: int = 0, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> socket.socket:
    """A listening socket at ``path`` that does not block, in place of what is there; a path over 107 bytes fits, too.

    It is bound under a temporary name in a folder descriptor and renamed when mode and owner are right.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        name = f".{os.getpid()}"
        here = f"/proc/self/fd/{folder}/{name}"
        Path(here).unlink(missing_ok=True)
        listener.bind(here)
        os.chown(name, 0, group, dir_fd=folder)
        os.chmod(here, mode)
        listener.listen(_BACKLOG)
        os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)
    listener.setblocking(False)
    return listener


def receive_signals(numbers: Iterable[int]) -> socket.socket:
    """From now on these signals arrive as bytes on this socket, and interrupt nothing."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return ours


def connect_datagram(path: Path) -> socket.socket | None:
    """A datagram socket to a service that listens at ``path``; None where nobody does."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    connection.setblocking(False)
    return connection


def send_fields(journald: socket.socket | None, **fields: object) -> None:
    """One native entry for journald (systemd's native protocol); lost when journald restarts or is behind."""
    with contextlib.suppress(OSError):
        if journald is not None:
            journald.send("".join(f"{name}={value}\n" for name, value in fields.items()).encode())
