"""The load balancer: probes a port of the VM from the platform's address and keeps count."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any


class Prober:
    """One probe after another in a thread. Invariant: the counts belong to the probing that was
    started last.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._answered = 0
        self._failed = 0
        self._longest_gap_s = 0.0
        self._last: float | None = None

    def once(self, address: str, port: int, source: str, timeout_s: float) -> str:
        """The answer's text, or "" when there is none."""
        try:
            with socket.create_connection((address, port), timeout_s, (source, 0)) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := connection.recv(4096):
                    answer += piece
        except OSError:
            return ""
        return answer.decode("latin-1")

    def start(self, address: str, port: int, source: str, period_s: float) -> None:
        self.stop()
        self._stop = threading.Event()
        self._answered = self._failed = 0
        self._longest_gap_s, self._last = 0.0, time.monotonic()
        arguments = (self._stop, address, port, source, period_s)
        self._thread = threading.Thread(
            target=self._run, args=arguments, daemon=True, name="lab-prober"
        )
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10.0)
            self._thread = None

    def report(self) -> dict[str, Any]:
        now = time.monotonic()
        gap_s = max(
            self._longest_gap_s,
            now - self._last if self._last is not None and self._thread is not None else 0.0,
        )
        return {
            "answered": self._answered,
            "failed": self._failed,
            "longest_gap_s": round(gap_s, 2),
        }

    def _run(
        self, stop: threading.Event, address: str, port: int, source: str, period_s: float
    ) -> None:
        while not stop.wait(period_s):
            if "200 OK" in self.once(address, port, source, 2.0):
                now = time.monotonic()
                self._longest_gap_s = max(
                    self._longest_gap_s, now - (self._last if self._last is not None else now)
                )
                self._last = now
                self._answered += 1
            else:
                self._failed += 1
