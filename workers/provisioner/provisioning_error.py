"""What the provisioner raises; its texts go to the platform as the description of
ProvisioningFailed.
"""

from __future__ import annotations

from waagent.protocol.base.errors import ExplainedError


class ProvisioningError(ExplainedError):
    """Root of this room: what went wrong, where, and what to do about it. Tried again while the
    process lives.
    """


class Refused(ProvisioningError):
    """What was asked for must not be done; only another request, or another option, changes
    that.
    """


class NoRequest(ProvisioningError):
    """No disc with a request was found (yet): it may be attached later."""
