"""A worker's sockets on the bus, opened when they are first needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from waagent.protocol.base.repeated_faults import Faults
from waagent.protocol.bus import sockets
from waagent.protocol.bus.client import Client
from waagent.protocol.bus.server import Server
from waagent.protocol.worker_start import WorkerStart

if TYPE_CHECKING:
    from waagent.protocol.bus.bus_loop import Loop


class BusSockets:
    """One context, at most one serving socket, clients. Invariant: nothing in it waits for another
    worker.
    """

    def __init__(self, start: WorkerStart, folder: Path, loop: Loop, faults: Faults) -> None:
        self._start, self._folder, self._loop, self._faults = start, folder, loop, faults
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._server: Server | None = None

    @property
    def context(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The ZeroMQ context."""
        if self._context is None:
            self._context = sockets.new_context()
        return self._context

    def serve(self) -> Server:
        """The serving socket of this worker; the same one each time. Raises SocketPathError."""
        if self._server is None:
            if self._start.listener is None:
                raise RuntimeError(
                    f"{self._start.name} was started without a listener: its roster row must say"
                    " that it serves"
                )
            self._server = Server(
                self._loop,
                self.context,
                self._folder / self._start.name,
                self._start.listener,
                state=self._start.state,
                faults=self._faults,
            )
        return self._server

    def client(self, server_name: str) -> Client:
        """A client of the worker ``server_name``, whether it runs or not. Raises
        SocketPathError.
        """
        return Client(self._loop, self.context, self._folder / server_name, self._faults)
