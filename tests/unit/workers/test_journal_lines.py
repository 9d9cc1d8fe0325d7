"""A worker's records as journald receives them."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from waagent.distro.paths import Paths
from waagent.protocol.base.log import Log
from waagent.workers.journal_lines import JournalLines


def test_records_carry_the_fields_by_which_they_are_found() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        place = Path(root, "run/systemd/journal/socket")
        place.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
            journald.bind(str(place))
            log = Log("extension_runner", descriptor=os.open(os.devnull, os.O_WRONLY))
            log.also = JournalLines("extension_runner", Paths(root))

            log.warning("operation ended handler=%s id=%s", "A.B", "a-1")
            log.info("one\nline")

            entries = [journald.recv(4096).decode().splitlines() for _ in range(2)]
    assert {
        "SYSLOG_IDENTIFIER=waagent",
        "WAAGENT_WORKER=extension_runner",
        "WAAGENT_OPERATION=a-1",
        "PRIORITY=4",
    } <= set(entries[0])
    assert "MESSAGE=extension_runner: one line" in entries[1]


def test_without_journald_the_file_alone_is_written(tmp_path: Path) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = Log("provisioner", descriptor=file)
    log.also = JournalLines("provisioner", Paths(tmp_path))

    log.info("said")

    assert (tmp_path / "log").read_text().endswith(" said\n")
