"""How long to wait before the next try, after so many that failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def next_pause_s(failed_tries: int, pauses_s: Sequence[float]) -> float:
    """The pause after ``failed_tries`` (1 or more) in a row: a row of ``pauses_s`` for each, the
    last one for all later ones.
    """
    return pauses_s[min(max(failed_tries, 1), len(pauses_s)) - 1]


def doubled_pause_s(failed_tries: int, first_s: float, longest_s: float) -> float:
    """The same where each pause is twice the one before, up to ``longest_s``."""
    return min(longest_s, first_s * 2.0 ** min(max(failed_tries, 1) - 1, 64))
