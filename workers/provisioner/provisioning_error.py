"""What the provisioner raises; its texts go to the platform as the description of
ProvisioningFailed.
"""

from __future__ import annotations


class ProvisioningError(Exception):
    """Root of this room: what went wrong, where, and what to do about it. Tried again while the
    process lives.
    """

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{what}: {where}: {remedy}")
        self.what, self.where, self.remedy = what, where, remedy


class Refused(ProvisioningError):
    """What was asked for must not be done; only another request, or another option, changes
    that.
    """


class NoRequest(ProvisioningError):
    """No disc with a request was found (yet): it may be attached later."""
