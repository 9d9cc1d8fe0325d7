"""What a supervisor that cannot go on leaves behind, and how long it waits before init may start
the next one. Loaded only then.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from pathlib import Path

from waagent.supervisor.sd_notify import ServiceNotifier

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
FORGOTTEN_S = 120.0
"""A failure so long after the last one begins the pauses anew."""


def say(run: Path, log: int, standard_error: int) -> None:
    """Traceback of the exception being handled to the log and to where init looks (the journal),
    its last line as the unit's status text; then the pause.
    """
    text = traceback.format_exc()
    reason = text.rstrip().splitlines()[-1]
    for descriptor in (log, standard_error):
        try:
            os.write(descriptor, f"waagent: supervisor ended: {reason}\n{text}".encode())
        except OSError:
            continue  # a full disk, or nobody reads: the other one is told
    notifier = ServiceNotifier(os.environ)
    wait_s = pause_s(failures_until_now(run))
    notifier.send(f"STATUS=failed, next try in {wait_s:.0f} s: {reason[:200]}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a stop does not wait for us
    time.sleep(wait_s)


def failures_until_now(run: Path) -> int:
    """Count this failure in `failures` of the run folder: one byte each, forgotten after a quiet
    time.
    """
    file = run / "failures"
    try:
        if time.time() - file.stat().st_mtime > FORGOTTEN_S:
            file.unlink()
    except OSError:
        pass  # the first one
    try:
        with open(file, "ab") as stream:
            stream.write(b".")
        return file.stat().st_size
    except OSError:
        return 1  # /run is full: the shortest pause


def pause_s(failures: int) -> float:
    """None after the first failure, then twice as long each time."""
    if failures <= 1:
        return 0.0
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 2, 10))
