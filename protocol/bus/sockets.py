"""The options of every bus socket, in one table, and the addresses.

=========  ==========================
=============================================================================== where      set to
why =========  ==========================
=============================================================================== all        SNDHWM =
RCVHWM = 64        nothing is queued for a dead peer all        LINGER = 0                  a worker
ends at once, whatever is still queued all        IMMEDIATE = 1               messages go to
connections that stand, none wait for one that may come all        RECONNECT_IVL 10 to 1000    back
within a moment, and no storm while nobody is there all        MAXMSGSIZE = 1 MiB          one frame
cannot eat the worker's memory limit ROUTER     ROUTER_MANDATORY = 1        a stopped peer gives
EAGAIN, a gone one EHOSTUNREACH, none of them silence ROUTER     ZAP_DOMAIN, ZAP_ENFORCE     without
them everyone is let in ROUTER     HANDSHAKE_IVL = 1000        who is not admitted is put out after
a second, and may come back DEALER     PROBE_ROUTER = 1            the server sees a client at its
reconnect, and answers who it is DEALER     HANDSHAKE_IVL = 0           while no server runs the
connection rests in the listener's backlog; giving up
                                       and coming back every 30 s would wake the VM and fill the
                                       backlog with ruins
=========  ==========================
===============================================================================

Never ROUTING_ID, never ROUTER_HANDOVER: with handover an impostor received a worker's messages.
"""

from __future__ import annotations

import os
from pathlib import Path

import zmq

from waagent.protocol.bus.bus_errors import SocketPathError
from waagent.protocol.bus.envelope import ENVELOPE_LIMIT_BYTES

QUEUE_LIMIT = 64
RECONNECT_MS = 10
RECONNECT_LIMIT_MS = 1000
HANDSHAKE_MS = 1000
DOMAIN = b"waagent"
PATH_LIMIT_BYTES = 107  # sockaddr_un.sun_path without its final zero
FRAMES_PER_TURN = 256  # of one socket; then timers and heartbeats have their turn
INSTANCE = "bus.instance"  # event {instance}: a server's answer to a probe
ADMISSION_ADDRESS = "inproc://zeromq.zap.01"  # fixed by ZeroMQ RFC 27


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """A context of this process alone: sockets inherited over a fork seem to work and do
    nothing.
    """
    return zmq.Context(io_threads=1)


def open_router(
    context: zmq.Context[zmq.Socket[bytes]], path: Path, listener: int
) -> zmq.Socket[bytes]:
    """A ROUTER that serves on ``listener``, the raw descriptor of a socket that listens on
    ``path``.

    libzmq owns and closes the descriptor from here on. The admission handler must be bound before.
    """
    address = address_of(path)
    # a client that is gone before accept() would stop libzmq's thread
    os.set_blocking(listener, False)
    router = context.socket(zmq.ROUTER)
    _set_common(router)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    router.setsockopt(zmq.USE_FD, listener)
    router.bind(address)
    return router


def open_dealer(context: zmq.Context[zmq.Socket[bytes]], path: Path) -> zmq.Socket[bytes]:
    """A DEALER that connects to the server on ``path``, now or as soon as there is one."""
    address = address_of(path)
    dealer = context.socket(zmq.DEALER)
    _set_common(dealer)
    dealer.setsockopt(zmq.PROBE_ROUTER, 1)
    dealer.setsockopt(zmq.HANDSHAKE_IVL, 0)
    dealer.connect(address)
    return dealer


def open_admission(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The socket that libzmq asks whom to admit (a ROUTER, so that an asker that is gone disturbs
    nobody).
    """
    handler = context.socket(zmq.ROUTER)
    handler.setsockopt(zmq.LINGER, 0)
    handler.bind(ADMISSION_ADDRESS)
    return handler


def address_of(path: Path) -> str:
    """The address of the Unix socket ``path``. Raises SocketPathError when no Unix socket can have
    it.
    """
    size_bytes = len(os.fsencode(path))
    if size_bytes > PATH_LIMIT_BYTES:
        raise SocketPathError(
            f"path of {size_bytes} bytes is too long for a Unix socket",
            str(path),
            f"use a shorter root, the limit is {PATH_LIMIT_BYTES}",
        )
    return f"ipc://{path}"


def _set_common(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.SNDHWM, QUEUE_LIMIT)
    socket.setsockopt(zmq.RCVHWM, QUEUE_LIMIT)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_LIMIT_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, ENVELOPE_LIMIT_BYTES)
