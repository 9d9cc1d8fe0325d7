"""What a worker starts with: made by the zygote's worker_setup, read by `workers/runtime.py`.
Plain data, stdlib only.
"""

from __future__ import annotations

from waagent.protocol.base.records import Record


class WorkerStart(Record):
    """Everything that a worker cannot ask for any more once it is fenced in.

    Descriptors 0, 1 and 2 are /dev/null, the log and the log. Besides those named here a worker
    holds the descriptor of its lock (`/run/waagent/lock/<name>`) and nothing of the supervisor's.
    """

    name: str
    """Its name in the roster; its room is ``waagent.workers.<name>``."""
    root: str
    """The root prefix, `/` on a running system."""
    supervisor_pid: int
    build: str
    """What `hello` says; the supervisor refuses another one's worker."""
    listener: int | None
    """Raw descriptor of the listening bus socket, held by no Python object; None when the worker
    does not serve.
    """
    state: int
    """The state file, read only, opened before the fence."""
    place: tuple[str, ...]
    """`cgroup.procs` files of w-<name>/tools; empty when there are none."""
    beat_s: float
    """Period of the heartbeats; they fall on its multiples on CLOCK_MONOTONIC."""
    stack: int = -1
    """A memfd that takes the stack at SIGUSR1 (the supervisor holds it too); -1 for standard error.
    """
    outside: tuple[str, ...] = ()
    """`cgroup.procs` files of a place that no kill of ours reaches: for tools that may leave a
    daemon behind (a service's restart, an installer). Empty without cgroups: then nothing but the
    worker's own process tree is killed.
    """
    handover: int | None = None
    """Raw descriptor of the listening socket on which connections are handed over; None for a
    worker that hands none over (protocol/wire/handover.py).
    """
    tools: tuple[int, ...] = ()
    """For a worker that cannot open ``place`` itself: those files, opened before the fence by its
    own uid, so that they take its own processes only.
    """
