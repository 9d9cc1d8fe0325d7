"""The throw-away machine: namespaces over an overlay of `/`, a platform beside it, nothing left
when it ends.

``from waagent.lab.machine import Machine`` loads waagent.lab.machine.machine at that moment, not
before.
"""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name == "Machine":
        from waagent.lab.machine.machine import Machine

        return Machine
    raise AttributeError(name)
