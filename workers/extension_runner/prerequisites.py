"""What a command needs before it can run: the handler's manifest, its limits, a place where
programs may be executed.
"""

from __future__ import annotations

import os
from pathlib import Path

from waagent.distro import files
from waagent.protocol.base.log import Log
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler.handler_errors import HandlerError
from waagent.protocol.handler.manifest import FILE_NAME, LIMIT_BYTES, Manifest, parse_manifest
from waagent.workers.extension_runner.limits import FILE_LIMIT_BYTES, HandlerLimits, parse_limits


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the handler that is unpacked in ``folder``. Raises HandlerError."""
    try:
        return parse_manifest(
            files.read_foreign(folder, FILE_NAME, limit_bytes=LIMIT_BYTES), str(folder / FILE_NAME)
        )
    except FileNotFoundError as error:
        raise HandlerError(
            f"{FILE_NAME} is missing",
            str(folder),
            "install the handler again",
            handler_errors.MANIFEST_MISSING,
        ) from error
    except files.FileError as error:
        raise HandlerError(
            f"{FILE_NAME} cannot be read",
            str(error),
            "install the handler again",
            handler_errors.MANIFEST_INVALID,
        ) from error


def read_limits(folder: Path, handler: str, log: Log) -> HandlerLimits:
    """`sandbox.d/<handler>.conf` in ``folder``; the defaults without one. Raises HandlerError when
    the handler must not run.
    """
    path = folder / f"{handler}.conf"
    try:
        data = files.read_foreign(folder, path.name, limit_bytes=FILE_LIMIT_BYTES)
    except FileNotFoundError:
        return HandlerLimits()
    except (OSError, files.FileError) as error:
        raise HandlerError("limits cannot be read", str(path), str(error)) from error
    limits = parse_limits(data, str(path))
    for warning in limits.warnings:
        log.warning("%s", warning)
    if limits.refusal:
        raise HandlerError(f"not run: {limits.refusal}", handler, "see the file")
    return limits


def is_noexec(folder: Path) -> bool:
    """Whether ``folder`` lies where no program may be executed."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
    except OSError:
        return False
