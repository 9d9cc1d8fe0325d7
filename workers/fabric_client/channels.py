"""The two ways to storage, by the host or directly, and which is tried first: what failed is not
tried first again for some minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

HOST, DIRECT = "host", "direct"
BAD_S = 300.0


class Channels:
    """Invariant: both ways are in `order`, the host first unless it failed last and directly did
    not.
    """

    def __init__(self) -> None:
        self._bad_until = {HOST: 0.0, DIRECT: 0.0}

    def order(self, now: float) -> list[str]:
        """The ways in the order in which they are to be tried; the host needs no TLS."""
        if now < self._bad_until[HOST] and now >= self._bad_until[DIRECT]:
            return [DIRECT, HOST]
        return [HOST, DIRECT]

    def worked(self, name: str) -> None:
        """Something went that way."""
        if name in self._bad_until:
            self._bad_until[name] = 0.0

    def failed(self, names: Sequence[str], now: float) -> None:
        """Nothing went those ways."""
        for name in names:
            if name in self._bad_until:
                self._bad_until[name] = now + BAD_S
