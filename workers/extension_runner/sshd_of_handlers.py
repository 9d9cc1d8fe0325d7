"""A handler that sets an option of sshd (VMAccess resets passwords so) has the last word: a value
that provisioning had put before it is taken back before the operation is reported.
"""

from __future__ import annotations

from waagent.distro import sshd_later
from waagent.distro.distributions import family_of
from waagent.distro.operations.records import Observation
from waagent.distro.run import ToolError
from waagent.workers.extension_runner.lane_context import LaneContext


def leave_sshd_to_handler(context: LaneContext, handler: str, seen: Observation) -> None:
    """Look whether the operation that ended has set what we had set, and make way for it."""
    worker, paths = context.worker, context.paths
    started_at = seen.started.get("time")
    since = float(started_at) if isinstance(started_at, (int, float)) else None
    try:
        given = sshd_later.make_way(paths, since)
        if not given:
            return
        worker.log.info(
            "sshd: %s was set by handler=%s, the value of provisioning is removed",
            " ".join(given),
            handler,
        )
        sshd_later.reload_sshd(paths, family_of(paths), worker.run)
    except (OSError, ToolError) as error:
        worker.log.warning(
            "sshd may not follow handler=%s: %s: reload sshd by hand", handler, error
        )
