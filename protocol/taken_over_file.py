"""`<lib>/operations/taken_over.json`: what a predecessor had done with the handlers when it was
stopped. Written by `waagent -take-over`, read by extension_runner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from waagent.protocol.base.records import Record

NAME = "taken_over.json"
SCHEMA = 1


class Settled(Record):
    """One extension whose ENABLE is not run again by its first goal state in this boot."""

    handler: str
    version: str
    extension: str
    """Of a handler with several; empty otherwise."""
    sequence: int


def packed(boot_id: str, settled: Iterable[Settled]) -> bytes:
    """The file."""
    rows = [dict(zip(one._fields, one)) for one in settled]
    text = json.dumps({"schema": SCHEMA, "boot_id": boot_id, "settled": rows}, indent=1)
    return (text + "\n").encode()


def parsed(document: Any, boot_id: str) -> frozenset[Settled]:
    """What holds in the boot ``boot_id``; nothing of another one: ENABLE is due after a boot."""
    if not isinstance(document, Mapping) or document.get("boot_id") != boot_id:
        return frozenset()
    found = set()
    for row in document.get("settled") or ():
        try:
            found.add(
                Settled(
                    str(row["handler"]).lower(),
                    str(row["version"]),
                    str(row["extension"]),
                    int(row["sequence"]),
                )
            )
        except (KeyError, TypeError, ValueError):
            continue  # a row of a newer version
    return frozenset(found)
