"""The configuration as far as the supervisor hands it on: written by the process that reads the
files, read by the supervisor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgpack

from waagent.protocol.base.records import Record


class Settings(Record):
    """What each worker is configured with, and which are off."""

    by_worker: Mapping[str, Mapping[str, Any]]
    off: frozenset[str] = frozenset()
    verbose: bool = False
    findings: tuple[str, ...] = ()


def write_settings(descriptor: int, settings: Settings) -> None:
    """Write them to a file that is empty."""
    os.write(descriptor, msgpack.packb({**settings._asdict(), "off": sorted(settings.off)}))


def take_settings(descriptor: int) -> Settings:
    """What `write_settings` wrote; the descriptor is closed. Raises ValueError when that was
    nothing, or not whole.
    """
    try:
        said = msgpack.unpackb(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
    finally:
        os.close(descriptor)
    off, findings = frozenset(said["off"]), tuple(said["findings"])
    return Settings(said["by_worker"], off, said["verbose"], findings)
