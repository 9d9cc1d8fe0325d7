"""The host's entropy in the ACPI table OEM0."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.workers.kernel_tuner import entropy

HEADER = b"OEM0" + (100).to_bytes(4, "little") + b"\x01\x00MICROSFT" + bytes(20)
RANDOM = bytes(range(1, 65))


def a_system(root: Path, table: bytes | None) -> Paths:
    """A root with that table, and a file where /dev/urandom is."""
    (root / "dev").mkdir()
    (root / "dev/urandom").write_bytes(b"")
    if table is not None:
        file = root / "sys/firmware/acpi/tables/OEM0"
        file.parent.mkdir(parents=True)
        file.write_bytes(table)
    return Paths(root)


@pytest.mark.parametrize(
    ("table", "taken", "said"),
    [
        (HEADER[:36] + RANDOM, RANDOM, "entropy taken"),
        (HEADER[:36] + RANDOM[:8], RANDOM[:8], "entropy taken"),
        (HEADER[:36] + bytes(64), b"", "entropy taken by the kernel"),
        (HEADER[:36] + RANDOM[:7], b"", ""),
        (b"OEM0", b"", ""),
        (b"", b"", ""),
        (None, b"", ""),
    ],
    ids=["whole", "smallest", "zeroed", "short", "cut", "empty", "none"],
)
def test_the_payload_alone_is_given_to_the_kernel(
    tmp_path: Path, table: bytes | None, taken: bytes, said: str
) -> None:
    paths = a_system(tmp_path, table)
    reading, writing = os.pipe()

    summary = entropy.take(paths, Log("test", descriptor=writing))

    os.close(writing)
    log = os.read(reading, 4096).decode()
    assert (tmp_path / "dev/urandom").read_bytes() == taken
    assert summary == said
    assert RANDOM.hex()[:16] not in log and repr(RANDOM[:8]) not in log
