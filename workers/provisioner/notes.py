"""What one run of the provisioner leaves for the next: which host keys are new already, whom it
provisioned.
"""

from __future__ import annotations

import json
from typing import Any

from waagent.distro.files import read_state_json, write_atomic
from waagent.distro.paths import Paths

NOTES = "provisioning.json"


def read_notes(paths: Paths) -> dict[str, Any]:
    """What an earlier run of this provisioning noted."""
    found = read_state_json(paths.library / NOTES)
    return found if isinstance(found, dict) else {}


def write_notes(paths: Paths, notes: dict[str, Any]) -> None:
    """Keep notes for a run after this one."""
    write_atomic(
        paths.library / NOTES, json.dumps(notes, sort_keys=True).encode("ascii"), mode=0o600
    )
