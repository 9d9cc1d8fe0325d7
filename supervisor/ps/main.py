"""The entry of `waagent-ps`: what the agent is doing, for anyone."""

from __future__ import annotations

import sys

from waagent.supervisor.ps.run import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
