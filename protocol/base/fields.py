"""Fields of a map that somebody else wrote: the value when it is of the type that is wanted, else
nothing. No reader of a state file fails by what stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(said: Mapping[str, Any], key: str) -> float | None:
    """A number; None for anything else."""
    value = said.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def whole(said: Mapping[str, Any], key: str) -> int | None:
    """A whole number; None for anything else."""
    value = said.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text(said: Mapping[str, Any], key: str) -> str:
    """A text; empty for anything else."""
    value = said.get(key)
    return value if isinstance(value, str) else ""


def texts(said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; empty for anything else."""
    value = said.get(key)
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()
