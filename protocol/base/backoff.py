"""How long to wait before the next try, after so many that failed."""

from __future__ import annotations

import os
from collections.abc import Sequence


def next_pause_s(failed_tries: int, pauses_s: Sequence[float]) -> float:
    """The pause after ``failed_tries`` (1 or more) in a row: a row of ``pauses_s`` for each, the
    last one for all later ones.
    """
    return pauses_s[min(max(failed_tries, 1), len(pauses_s)) - 1]


def doubled_pause_s(failed_tries: int, first_s: float, longest_s: float) -> float:
    """The same where each pause is twice the one before, up to ``longest_s``."""
    return min(longest_s, first_s * 2.0 ** min(max(failed_tries, 1) - 1, 64))


def spread_s(pause_s: float, fraction: float = 0.2) -> float:
    """``pause_s``, up to ``fraction`` more or less, so that a fleet does not ask in step."""
    share = int.from_bytes(os.urandom(2), "big") / 0xFFFF
    return pause_s * (1.0 + fraction * (2.0 * share - 1.0))
