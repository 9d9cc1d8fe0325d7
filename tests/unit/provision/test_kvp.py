"""Claims about what the hypervisor is told, in the records of its key-value pool."""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.paths import Paths
from waagent.workers.provisioner import kvp

NOW = datetime.datetime(2026, 11, 28, 5, 6, 7, tzinfo=datetime.timezone.utc)
VM = "544cdfd0-cb4e-4b4a-9954-5bdf3ed5c3b8"


def a_pool(root: Path) -> Path:
    pool = root / kvp.POOL.lstrip("/")
    pool.parent.mkdir(parents=True)
    return pool


def test_success_and_failure_have_the_documented_form() -> None:
    assert kvp.report(VM, "waagent/3.0.0", "", NOW) == (
        f"result=success|agent=waagent/3.0.0|pps_type=None|vm_id={VM}"
        "|timestamp=2026-11-28T05:06:07+00:00"
    )
    assert kvp.report(VM, "waagent/3.0.0", 'no "DVD" | found\n', NOW) == (
        'result=error|"reason=no ""DVD"" | found"|agent=waagent/3.0.0|pps_type=None'
        f"|vm_id={VM}|timestamp=2026-11-28T05:06:07+00:00"
        "|documentation_url=https://aka.ms/linuxprovisioningerror"
    )


def test_a_record_is_appended_once_and_others_stay(tmp_path: Path) -> None:
    pool = a_pool(tmp_path)
    pool.write_bytes(kvp.record("CLOUD_INIT|1", "theirs"))
    boot = time.time() - 100

    later = NOW + datetime.timedelta(seconds=9)
    for reason, at in (("no DVD", NOW), ("no DVD", later), ("", NOW), ("", later)):
        assert kvp.tell_host(Paths(tmp_path), kvp.report(VM, "a/1", reason, at), boot)

    assert pool.stat().st_size == 3 * 2560
    records = kvp.read_records(pool.read_bytes())
    assert [key for key, _ in records] == ["CLOUD_INIT|1", kvp.KEY, kvp.KEY]
    assert [value.split("|")[0] for _, value in records[1:]] == ["result=error", "result=success"]


def test_what_an_earlier_boot_said_goes(tmp_path: Path) -> None:
    pool = a_pool(tmp_path)
    pool.write_bytes(kvp.record(kvp.KEY, "result=error|reason=old"))
    os.utime(pool, (1, 1))

    kvp.tell_host(Paths(tmp_path), kvp.report(VM, "a/1", "", NOW), time.time() - 100)

    assert [value[:14] for _, value in kvp.read_records(pool.read_bytes())] == ["result=success"]


def test_without_the_daemon_s_folder_nothing_is_said(tmp_path: Path) -> None:
    assert not kvp.tell_host(Paths(tmp_path), "x", 0.0)


@given(st.text(max_size=3000))
def test_every_value_fits_its_record(text: str) -> None:
    made = kvp.record(kvp.KEY, text)

    assert len(made) == 2560
    assert len(made[512:].rstrip(b"\0")) < 2048
