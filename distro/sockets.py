"""Sockets of the system's kind: listening ones with an owner and a mode, and signals that arrive as
bytes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterable
from pathlib import Path

_BACKLOG = 64
_PATH_BYTES = 107  # sun_path of unix(7), without its end


def listen(
    path: Path, mode: int, group: int = 0, kind: socket.SocketKind = socket.SOCK_SEQPACKET
) -> socket.socket:
    """A listening socket at ``path`` that does not block, in place of what is there; a path over
    107 bytes fits, too.

    Nobody can connect before mode and owner are right.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    mask = os.umask(0o777)
    try:
        path.unlink(missing_ok=True)
        is_short = len(os.fsencode(path)) <= _PATH_BYTES  # the name by which `ss` shows it
        listener.bind(str(path) if is_short else f"/proc/self/fd/{folder}/{path.name}")
        os.chown(path, 0, group)
        os.chmod(path, mode)
        listener.listen(_BACKLOG)
    finally:
        os.umask(mask)
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
    """One native entry for journald (systemd's native protocol); lost when journald restarts or is
    behind.
    """
    with contextlib.suppress(OSError):
        if journald is not None:
            journald.send("".join(f"{name}={value}\n" for name, value in fields.items()).encode())
