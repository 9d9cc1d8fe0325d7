"""May an extension start, must it wait, or can it never? Pure (spec: extensions §3.13).

An extension waits for the ones it names; with a level above 0 and no names, for all of lower
levels. What fails takes along only those that wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Tuple

from waagent.protocol.base.records import Record

GO, WAIT, FAIL = "go", "wait", "fail"
LONGEST_S = 90 * 60

Key = Tuple[str, str]
"""Handler in lower case, extension (empty in single-config)."""


class Node(Record):
    """One extension of the goal state."""

    level: int
    needs: tuple[Key, ...]
    state: str
    """What is reported of it: success, error, transitioning, warning; empty while nothing is."""


class Verdict(Record):
    """What to do, and why when it is not GO."""

    word: str
    text: str = ""


def judge(key: Key, nodes: Mapping[Key, Node], waited_s: float) -> Verdict:
    """The verdict on ``key``, which is in ``nodes``; ``waited_s`` since the goal state came."""
    node = nodes[key]
    needed: list[Key] = []
    for name in node.needs:
        meant = _meant(name, nodes)
        if not meant:
            return Verdict(
                FAIL,
                f"Ran into config errors: it depends on {shown(name)}, which is not in the goal"
                " state",
            )
        needed += meant
    if key in needed or _reaches(key, needed, nodes):
        return Verdict(FAIL, "Ran into config errors: it depends on itself")
    if not needed and node.level > 0:
        needed = [other for other, its in nodes.items() if its.level < node.level]
    for other in needed:
        if nodes[other].state == "error":
            return Verdict(
                FAIL,
                f"Skipping processing of extensions since dependency {shown(other)} failed: its"
                " status is error",
            )
    for other in needed:
        if nodes[other].state != "success":
            if waited_s > LONGEST_S:
                state = nodes[other].state or "unknown"
                return Verdict(
                    FAIL,
                    f"Dependency {shown(other)} did not succeed within 90 minutes: its status is"
                    f" {state}",
                )
            return Verdict(WAIT, f"waiting for {shown(other)}")
    return Verdict(GO)


def shown(key: Key) -> str:
    """`handler` or `handler.extension`."""
    return ".".join(filter(None, key))


def _meant(name: Key, nodes: Mapping[Key, Node]) -> list[Key]:
    """A name without an extension means all extensions of that handler."""
    if name in nodes:
        return [name]
    return [other for other in nodes if other[0] == name[0]] if not name[1] else []


def _reaches(key: Key, start: list[Key], nodes: Mapping[Key, Node]) -> bool:
    seen: set[Key] = set()
    queue = list(start)
    while queue:
        here = queue.pop()
        if here not in seen:
            seen.add(here)
            queue += [other for name in nodes[here].needs for other in _meant(name, nodes)]
    return key in seen
