"""Carries out an operator's `waagent-ps extensions reset NAME`, before the handler's lane plans."""

from __future__ import annotations

import os
from pathlib import Path

from waagent.distro import files
from waagent.distro.operations import records, resets
from waagent.protocol.base.log import Log
from waagent.workers.extension_runner.handler_journal import Journal


def carry_out(operations: Path, journal: Journal, log: Log) -> None:
    """Forget the failures when that was asked for. Killed in between it is carried out anew. Raises
    OSError.
    """
    request = resets.request(operations, journal.name)
    if not request.exists():
        return
    failed = [outcome.id for outcome in journal.outcomes.values() if not outcome.succeeded]
    for identity in failed:
        folder = operations / identity
        if folder.is_dir() and not records.is_locked(folder):
            files.remove_tree(folder)
    journal.forget_failures()
    os.unlink(request)
    log.info("failures are forgotten handler=%s operations=%d", journal.name, len(failed))
