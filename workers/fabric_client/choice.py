"""Which of two extension goal states is followed: ExtensionsConfig of the WireServer, or vmSettings
of the host. Pure.
"""

from __future__ import annotations

from typing import Any

from waagent.protocol.base.records import Record

FAST_TRACK = "FastTrack"
Frame = dict[str, Any]
"""An answer of transfer of the kind `extensions`."""


class Choice(Record):
    """What follows from what is known."""

    followed: Frame | None
    """None: nothing can be followed yet."""
    is_outdated: bool = False
    """The WireServer's is older than what was followed before: nothing of it is carried out."""


def is_fast_track(frame: Frame | None) -> bool:
    """Whether the host wrote it."""
    return frame is not None and frame["source"] == FAST_TRACK


def choose(
    fabric: Frame | None, fast: Frame | None, followed: Frame | None, floor_ticks: int
) -> Choice:
    """The newer one by creation time, a tie goes to ExtensionsConfig; never one that is older than
    the FastTrack goal state that was followed last, of which ``floor_ticks`` is the time (0: none).
    """
    if fast is not None and (fabric is None or fast["created_ticks"] > fabric["created_ticks"]):
        return Choice(fast)
    if fabric is None:
        return Choice(followed)
    if fabric["created_ticks"] < floor_ticks and fast is None:
        return Choice(followed, is_outdated=True)
    return Choice(fabric)
