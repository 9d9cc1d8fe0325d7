"""Exit statuses of the agent and of its workers: what init, an operator and the supervisor read of
them.
"""

from __future__ import annotations

# of `waagent`
FAILED = 1
"""Also: another supervisor runs."""
UPGRADE = 75
"""Another build is installed: init starts it (sysexits.h: EX_TEMPFAIL)."""

# of a worker's process, before its own code runs
GATE = 70
"""The supervisor went away, or took the start back."""
LOCKED = 71
"""Another process of the same name holds its lock."""
SETUP = 72
"""A fence or limit that must stand could not be put up; the log says which."""
