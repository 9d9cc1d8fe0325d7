"""The boot DVD: which devices may hold it, in a fixed order, and the first that holds a request for
us.

Source: spec/provisioning.md §2 with its Rules, traps 9 and 34.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from waagent.distro import our_python
from waagent.distro.paths import Paths
from waagent.distro.run import Finished
from waagent.protocol.base.log import Log
from waagent.workers import disc
from waagent.workers.provisioner import dvd_reader
from waagent.workers.provisioner.provisioning_error import NoRequest, ProvisioningError

if TYPE_CHECKING:
    from waagent.protocol.ovf import ProvisioningRequest

READ_LIMIT_S = 90.0  # 5 attempts of the kernel, 5 s apart, and a slow drive
_KINDS = tuple(
    re.compile(pattern)
    for pattern in (r"sr(\d+)", r"cdrom(\d*)", r"cd(\d+)", r"hd([c-z])", r"vd([b-z])")
)
_CDROM_EJECT = 0x5309
_SAID_LIMIT = 300

Run = Callable[..., Finished]


@dataclass(frozen=True)
class Disc:
    """A document and where it stood."""

    device: str
    document: bytes
    request: ProvisioningRequest


def order_candidates(names: Iterable[str]) -> tuple[str, ...]:
    """The names below /dev that may be the DVD, best first: sr, cdrom, cd, hd, vd, each by number;
    whole names only.
    """
    found = []
    for name in names:
        for rank, kind in enumerate(_KINDS):
            match = kind.fullmatch(name)
            if match is not None:
                part = match.group(1)
                found.append((rank, int(part) if part.isdigit() else -1, name))
    return tuple(name for _, _, name in sorted(found))


def candidates(paths: Paths) -> tuple[Path, ...]:
    """The devices that are there, each once, whatever links lead to it."""
    folder = paths.under("/dev")
    try:
        names = os.listdir(folder)
    except OSError:
        return ()
    seen: set[str] = set()
    devices = []
    for name in order_candidates(names):
        real = os.path.realpath(folder / name)
        if real not in seen and os.path.exists(real):
            seen.add(real)
            devices.append(folder / name)
    return tuple(devices)


def find_disc(paths: Paths, mount_point: str, run: Run, log: Log) -> Disc:
    """The first disc with a request for us.

    Raises NoRequest when there is none (yet), OvfError when a document is there that cannot be
    acted on.
    """
    # lxml, 9 MiB: not when already provisioned
    from waagent.protocol.ovf import NoProvisioningSection, OvfError, read_ovf

    reasons: list[str] = []
    broken: OvfError | None = None
    for device in candidates(paths):
        try:
            document = read_device(device, mount_point, run)
        except ProvisioningError as error:
            reasons.append(f"{device.name}: {error.what}")
            continue
        try:
            request = read_ovf(document, f"{device}:ovf-env.xml")
        except NoProvisioningSection as error:
            reasons.append(f"{device.name}: {error.what}")
        except OvfError as error:
            broken = broken or error
        else:
            log.info(
                "read the boot DVD device=%s bytes=%d user=%r",
                device,
                len(document),
                request.user_name,
            )
            return Disc(str(device), document, request)
    if broken is not None:
        raise broken
    if not reasons:
        raise NoRequest(
            "No DVD device detected, unable to provision",
            "/dev",
            "attach the provisioning ISO; looked for again",
        )
    raise NoRequest(
        "no DVD with ovf-env.xml",
        "; ".join(reasons)[:_SAID_LIMIT],
        "attach the provisioning ISO; looked for again",
    )


def read_device(device: Path, mount_point: str, run: Run) -> bytes:
    """The ovf-env.xml on one device, as it stands. Raises NoRequest."""
    argv = our_python.argv(dvd_reader.__name__, str(device), mount_point, title="dvd reader")
    finished = run(
        argv, deadline_s=READ_LIMIT_S, check=False, output_limit_bytes=dvd_reader.LIMIT_BYTES + 1
    )
    if finished.status == disc.DONE:
        return finished.stdout
    said = " ".join(finished.stderr.decode("utf-8", "replace").split())[-_SAID_LIMIT:]
    what = {
        disc.NO_FILE: "has no ovf-env.xml",
        disc.NO_DISC: "no disc in it",
        disc.UNREADABLE: f"cannot be read ({said})",
    }.get(
        finished.status,
        (
            "took too long to read"
            if finished.timed_out
            else f"the reader ended with {finished.status} ({said})"
        ),
    )
    raise NoRequest(what, str(device), "another disc is tried")


def eject(device: str) -> str:
    """Open the drive, so that nobody else reads the password on it; empty when it went well, else
    why not.
    """
    if not re.fullmatch(r"(sr|cdrom|cd|hd)\w*", os.path.basename(device)):
        return "not a drive"
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return str(error.strerror)
    try:
        fcntl.ioctl(descriptor, _CDROM_EJECT, 0)
    except OSError as error:
        return str(error.strerror)
    finally:
        os.close(descriptor)
    return ""
