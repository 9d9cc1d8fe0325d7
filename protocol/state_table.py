"""`/run/waagent/state`: what the supervisor knew last, for whoever finds it silent.

Two slots of fixed size, written in turn and in place, so that a full `/run` changes nothing and a
reader always finds one whole slot. Slot: magic, sequence, length, CRC-32 of the payload, payload (a
msgpack map). Standard library and msgpack only: this is loaded into the supervisor.

The payload, which is also the answer to `list`, is a `Table` as a map of its fields; a field that
a reader does not know is ignored, one that is missing or of another type is what it is by default.
Times are CLOCK_MONOTONIC seconds, one clock for all processes of a boot.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgpack

from waagent.protocol.base import fields
from waagent.protocol.base.records import Record, to_map

SCHEMA = 1

# states of a worker
IDLE, OFF, STARTING, INIT, READY, HUNG = "IDLE", "OFF", "STARTING", "INIT", "READY", "HUNG"
STOPPING, KILL, STUCK = "STOPPING", "KILL", "STUCK"
BACKOFF, PARKED, DONE = "BACKOFF", "PARKED", "DONE"
ALIVE = frozenset((STARTING, INIT, READY, HUNG, STOPPING, KILL, STUCK))
"""There is a process, or may be."""

# kinds of workers
RESIDENT, ONESHOT, ONDEMAND = "resident", "oneshot", "ondemand"

SLOT_BYTES = 64 * 1024
SIZE_BYTES = 2 * SLOT_BYTES
_MAGIC = b"WAG1"
_HEAD = struct.Struct(">4sQII")  # magic, sequence, length, crc


class StateError(Exception):
    """No slot of the file is whole; the text says so."""


class WorkerRow(Record):
    """One worker, as the supervisor knows it."""

    name: str = ""
    kind: str = ""
    """RESIDENT, ONESHOT or ONDEMAND."""
    state: str = ""
    """IDLE … DONE."""
    since: float = 0.0
    """When it entered the state."""
    pid: int | None = None
    start_ticks: int | None = None
    """With ``pid`` one process of this boot (`/proc/<pid>/stat`)."""
    restarts: int = 0
    last_exit: str = ""
    """`exit 1`, `signal 9`, `not started`; empty when no run has ended."""
    reason: str = ""
    next_try_at: float | None = None
    """Of BACKOFF and PARKED; None when nothing is planned."""
    beat_at: float | None = None
    """Its last word."""
    doing: str = ""
    uid: int | None = None
    caps: tuple[str, ...] = ()
    fence: str = ""
    facts: Mapping[str, Any] = MappingProxyType({})
    """A small map that the worker told in its heartbeats: fabric_client {endpoint, answered_at,
    status_at, incarnation, health}, provisioner {provisioned, health}.
    """
    result: str | None = None
    """Of a one-shot that is done."""
    wants: Mapping[str, Any] = MappingProxyType({})
    """Which workers want it to run, each with its numbers."""
    stack: str = ""
    """The file that holds the stack of its last hang."""
    waits: tuple[str, ...] = ()
    """One-shots that must be done before it starts."""


class ZygoteRow(Record):
    """The process that forks workers; 0 and None while there is none."""

    pid: int = 0
    start_ticks: int | None = None


class Table(Record):
    """Everything the supervisor shows."""

    schema: int = SCHEMA
    agent_version: str = ""
    build: str = ""
    boot_id: str = ""
    vm_id: str = ""
    pid: int | None = None
    start_ticks: int | None = None
    started_at: float | None = None
    beat_at: float | None = None
    """When this was written."""
    source: str = ""
    missing: tuple[str, ...] = ()
    """What this machine does not give, a sentence each."""
    cgroups: str = ""
    """What is in force, e.g. `v2 memory pids cpu, v2 kill`; `none`."""
    zygote: ZygoteRow = ZygoteRow()
    notes: tuple[str, ...] = ()
    """What an operator should know, a sentence each."""
    workers: tuple[WorkerRow, ...] = ()


def table_map(table: Table) -> dict[str, Any]:
    """``table`` as it crosses: plain maps and arrays."""
    return to_map(table)


def parse_table(said: Mapping[str, Any]) -> Table:
    """The table that ``said`` is: a slot, or the answer to `list`; whatever it holds, no error."""
    zygote, rows = said.get("zygote"), said.get("workers")
    workers = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return Table(
        **fields.taken(Table, said),
        zygote=ZygoteRow(**fields.taken(ZygoteRow, zygote if isinstance(zygote, dict) else {})),
        workers=tuple(WorkerRow(**fields.taken(WorkerRow, row)) for row in workers),
    )


class StateWriter:
    """The supervisor's side. Invariant: the slot not being written is always whole."""

    def __init__(self, descriptor: int) -> None:
        """``descriptor`` is open for reading and writing; the file is allocated whole here,
        once.
        """
        self._descriptor, self._pack = descriptor, msgpack.Packer().pack
        os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        self._sequence, payload = max(_slot(descriptor, index) or (0, b"") for index in (0, 1))
        self.before: dict[str, Any] = msgpack.unpackb(payload, raw=False) if payload else {}
        """What the last writer left (`parse_table`); empty for the first one of this boot."""

    def write(self, table: Mapping[str, Any]) -> None:
        """Make ``table`` the newest slot. Raises StateError when it does not fit into a slot."""
        payload = self._pack(table)
        if len(payload) > SLOT_BYTES - _HEAD.size:
            room = SLOT_BYTES - _HEAD.size
            raise StateError(f"the table has {len(payload)} bytes, a slot {room}")
        self._sequence += 1
        head = _HEAD.pack(_MAGIC, self._sequence, len(payload), zlib.crc32(payload))
        os.pwrite(self._descriptor, head + payload, (self._sequence % 2) * SLOT_BYTES)


def read_state(descriptor: int) -> dict[str, Any]:
    """The newest whole slot, for `parse_table`. Raises StateError when there is none."""
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
