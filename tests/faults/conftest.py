"""The stage of the fabric's machine tests, for the table of faults (`make faults`)."""

from __future__ import annotations

from tests.machine.fabric.conftest import fabric, stage

__all__ = ["fabric", "stage"]
