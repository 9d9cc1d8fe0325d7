"""sd_notify(3): READY, WATCHDOG and STATUS to a service manager that asks for them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class ServiceNotifier:
    """Invariant: never waits; without NOTIFY_SOCKET every call does nothing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        is_for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        asked = environment.get("WATCHDOG_USEC", "") if is_for_us else ""
        self.period_s = int(asked) / 2e6 if asked.isdigit() and address else float("inf")
        self.due = 0.0 if asked and address else float("inf")
        self._status = ""

    def send(self, text: str) -> None:
        """``READY=1``, ``STOPPING=1`` …"""
        if self._socket is not None:
            # the manager is away or behind; the watchdog's next word comes in time
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(), socket.MSG_DONTWAIT, self._address)

    def beat(self, now: float) -> None:
        """The watchdog's word, when it is due."""
        if now >= self.due:
            self.due = now + self.period_s
            self.send("WATCHDOG=1")

    def say_status(self, status: str) -> None:
        """One line for `systemctl status`, sent when it changed."""
        if status != self._status:
            self._status = status
            self.send(f"STATUS={status}")
