"""What `/proc` says about processes, their figures and sessions, and waiting for their end.

The half that supervisor and shim need is `process_tree`; everybody else finds both here.
"""

from __future__ import annotations

import os

from waagent.distro.process_tree import SIGKILL as SIGKILL
from waagent.distro.process_tree import SIGSTOP as SIGSTOP
from waagent.distro.process_tree import Process as Process
from waagent.distro.process_tree import all_processes as all_processes
from waagent.distro.process_tree import boot_id as boot_id
from waagent.distro.process_tree import is_alive as is_alive
from waagent.distro.process_tree import kill_tree as kill_tree
from waagent.distro.process_tree import memory_pressure_full_avg10 as memory_pressure_full_avg10
from waagent.distro.process_tree import read_process as read_process
from waagent.distro.process_tree import signal_all as signal_all
from waagent.distro.process_tree import start_ticks as start_ticks
from waagent.distro.process_tree import state_letter as state_letter
from waagent.distro.process_tree import tree_among


def children_of(pid: int) -> list[int]:
    """The direct children of ``pid``, zombies included."""
    return [process.pid for process in all_processes() if process.parent == pid]


def tree_of(pid: int) -> list[int]:
    """``pid`` and all its descendants that are alive now, parents first."""
    return tree_among(pid, all_processes())


def session_of(leader: int, leader_start_ticks: int | None = None) -> list[int]:
    """All living processes of the session that ``leader`` made, also after its death; none when its
    pid is somebody else's now.
    """
    now = read_process(leader)
    if leader_start_ticks is not None and now is not None and now.start_ticks != leader_start_ticks:
        return []
    return [
        process.pid
        for process in all_processes()
        if process.session == leader and process.state not in "ZX"
    ]


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when ``pid`` ends; None before Linux 5.3 or when it is
    gone.
    """
    try:
        return os.pidfd_open(pid)  # sets CLOEXEC itself
    except (OSError, AttributeError):
        return None
