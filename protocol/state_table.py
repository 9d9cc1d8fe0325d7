"""`/run/waagent/state`: what the supervisor knew last, for whoever finds it silent.

Two slots of fixed size, written in turn and in place, so that a full `/run` changes nothing and a
reader always finds one whole slot. Slot: magic, sequence, length, CRC-32 of the payload, payload (a
msgpack map). Standard library and msgpack only: this is loaded into the supervisor.

The payload, which is also the answer to `list`::

    {"schema": 1, "agent_version", "build", "boot_id", "pid", "start_ticks", "started_at",
    "beat_at", "source",
     "missing": [texts: what this machine does not give], "notes": [texts: what an operator should
     know],
     "workers": [{"name", "kind", "state", "since", "pid", "start_ticks", "restarts", "last_exit",
     "reason", "next_try_at",
                  "beat_at", "doing", "uid", "caps", "fence", "facts", "result", "stack", "waits"}]}

Times are CLOCK_MONOTONIC seconds, one clock for all processes of a boot. ``facts`` is a small map
that a worker told in its heartbeat: fabric_client {endpoint, answered_at, status_at, incarnation,
health}, provisioner {provisioned, health}.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

import msgpack

from waagent.protocol.base import packed

SLOT_BYTES = 64 * 1024
SIZE_BYTES = 2 * SLOT_BYTES
_MAGIC = b"WAG1"
_HEAD = struct.Struct(">4sQII")  # magic, sequence, length, crc


class StateError(Exception):
    """No slot of the file is whole; the text says so."""


class StateWriter:
    """The supervisor's side. Invariant: the slot not being written is always whole."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is open for reading and writing; the file is allocated whole here,
        once.
        """
        self._descriptor = descriptor
        os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        self._sequence, payload = max(_slot(descriptor, index) or (0, b"") for index in (0, 1))
        self.before: dict[str, Any] = msgpack.unpackb(payload, raw=False) if payload else {}
        """What the last writer left; empty for the first one of this boot."""

    def write(self, table: dict[str, Any]) -> None:
        """Make ``table`` the newest slot. Raises StateError when it does not fit into a slot."""
        payload = packed.pack(table)
        if len(payload) > SLOT_BYTES - _HEAD.size:
            raise StateError(
                f"the table has {len(payload)} bytes, a slot {SLOT_BYTES - _HEAD.size}"
            )
        self._sequence += 1
        head = _HEAD.pack(_MAGIC, self._sequence, len(payload), zlib.crc32(payload))
        os.pwrite(self._descriptor, head + payload, (self._sequence % 2) * SLOT_BYTES)


def read_state(descriptor: int) -> dict[str, Any]:
    """The newest whole slot. Raises StateError when there is none."""
    slots = [slot for slot in (_slot(descriptor, 0), _slot(descriptor, 1)) if slot is not None]
    if not slots:
        raise StateError("no whole slot in the state file")
    table: dict[str, Any] = msgpack.unpackb(max(slots)[1], raw=False)
    return table


def _slot(descriptor: int, index: int) -> tuple[int, bytes] | None:
    head = os.pread(descriptor, _HEAD.size, index * SLOT_BYTES)
    if len(head) < _HEAD.size:
        return None
    magic, sequence, length, crc = _HEAD.unpack(head)
    if magic != _MAGIC or length > SLOT_BYTES - _HEAD.size:
        return None
    payload = os.pread(descriptor, length, index * SLOT_BYTES + _HEAD.size)
    if zlib.crc32(payload) != crc:
        return None
    return sequence, payload
