"""What happens to the table of workers, and what is to be done about it: one row each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from waagent.protocol.base.records import named as NamedTuple

# events
Tick = NamedTuple(
    "Tick", [("lag", float), ("stalled", frozenset[str]), ("occupied", frozenset[str])]
)
Forked = NamedTuple("Forked", [("name", str), ("run", int), ("pid", int)])
StartFailed = NamedTuple(
    "StartFailed", [("name", str), ("run", int), ("reason", str), ("chance", float)]
)
Exited = NamedTuple(
    "Exited", [("name", str), ("pid", int), ("status", int), ("left", bool), ("chance", float)]
)
Hello = NamedTuple("Hello", [("name", str), ("pid", int), ("guard", Mapping[str, Any])])
Ready = NamedTuple("Ready", [("name", str), ("pid", int)])
Beat = NamedTuple(
    "Beat",
    [("name", str), ("pid", int), ("doing", str), ("progress", int), ("facts", Mapping[str, Any])],
)
Busy = NamedTuple(
    "Busy", [("name", str), ("pid", int), ("seconds", float), ("reason", str), ("progress", int)]
)
Done = NamedTuple("Done", [("name", str), ("pid", int), ("summary", str)])
Wanted = NamedTuple("Wanted", [("by", str), ("name", str), ("numbers", tuple[int, ...])])
Unwanted = NamedTuple("Unwanted", [("by", str), ("name", str)])
Restart = NamedTuple("Restart", [("name", str)])
# names that the configuration turns off
Switched = NamedTuple("Switched", [("off", frozenset[str])])
Upgrade = NamedTuple("Upgrade", [])
End = NamedTuple("End", [("status", int)])

# actions
Start = NamedTuple("Start", [("name", str), ("run", int), ("as_root", bool)])
Open = NamedTuple("Open", [("name", str)])  # the gate, after the pid stands in the state file
Abandon = NamedTuple("Abandon", [("name", str)])  # close the gate: whoever waits behind it exits
Configure = NamedTuple("Configure", [("name", str)])
SayStop = NamedTuple("SayStop", [("name", str)])
TakeStack = NamedTuple("TakeStack", [("name", str)])
Kill = NamedTuple("Kill", [("name", str)])
Note = NamedTuple("Note", [("level", str), ("name", str), ("text", str)])
Leave = NamedTuple("Leave", [("status", int)])
