"""`waagent-ps`: what the agent is doing, for anyone.

Standard library and msgpack only, and few of it: the whole command takes less than 60 ms.
"""

from __future__ import annotations

import sys

from waagent.supervisor.ps import run


def main() -> int:
    """Run one command; its exit status as in ui.md, section 2."""
    return run.main()


if __name__ == "__main__":
    sys.exit(main())
