"""By which keys the user can log in, and whether any way is left. Pure.

One key that cannot be used is a warning; the VM is refused only when nobody could log in to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from waagent.workers.provisioner.provisioning_error import Refused
from waagent.workers.provisioner.public_keys import public_keys_in

if TYPE_CHECKING:
    from waagent.protocol.ovf import ProvisioningRequest

WHERE = "ovf-env.xml on the boot DVD"


@dataclass(frozen=True)
class Logins:
    """The keys of a request."""

    given: tuple[tuple[str, str], ...] = ()
    """(Path, line of authorized_keys)."""
    by_certificate: tuple[tuple[str, str], ...] = ()
    """(Path, fingerprint of a certificate of the goal state)."""
    problems: tuple[str, ...] = ()
    """What cannot be used, and why."""


def plan_logins(request: ProvisioningRequest) -> Logins:
    """The keys that can be tried. Raises Refused when keys were sent, none is one, and a password
    is no way to log in either.
    """
    given: list[tuple[str, str]] = []
    by_certificate: list[tuple[str, str]] = []
    problems: list[str] = []
    for key in request.public_keys:
        found = public_keys_in(key.value)
        given += [(key.path, line) for line in found.lines]
        problems += found.problems
        if not found.lines and key.fingerprint:
            by_certificate.append((key.path, key.fingerprint))
    logins = Logins(tuple(given), tuple(by_certificate), tuple(problems))
    if not given and not by_certificate and request.keys_sent:
        refuse_without_login(request, [*problems, *request.findings])
    return logins


def refuse_without_login(request: ProvisioningRequest, problems: list[str]) -> None:
    """Raise Refused, unless the user may log in by password. Call it when no key can be used."""
    if request.password is None or request.disable_password_login:
        why = "; ".join(problems)[:600] or "the boot DVD has none"
        raise Refused(
            f"no public key can be used and passwords are not allowed, nobody could log in: {why}",
            WHERE,
            "create the VM with a key in OpenSSH's form, such as: ssh-ed25519 AAAA... name",
        )
