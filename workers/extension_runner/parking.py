"""Why a lane is parked, in words. Pure."""

from __future__ import annotations

import traceback

from waagent.protocol.handler import handler_errors
from waagent.workers.extension_runner.plan import Refuse

AGAIN = "tried again with the next goal state, and after: waagent-ps restart extension_runner"


def raised(error: BaseException) -> Refuse:
    """The agent's own code failed while it looked at this handler: what, where, remedy."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "unknown"
    return Refuse(
        handler_errors.UNKNOWN,
        f"the agent failed at this handler ({type(error).__name__}: {str(error)[:300]}):"
        f" {where}: {AGAIN}",
    )


def deadly(times: int) -> Refuse:
    """The process of the agent ended so often while it looked at this handler."""
    return Refuse(
        handler_errors.UNKNOWN,
        f"extension_runner ended {times} times while it looked at this handler:"
        " /var/log/waagent.log: tried again with the next goal state",
    )
