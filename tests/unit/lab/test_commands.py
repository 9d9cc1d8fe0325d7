"""What `waagent-lab` says and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def lab(*words: str, uid: int | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "waagent.lab.commands", *words]
    return subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, user=uid
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_root_the_demo_says_in_one_line_what_it_needs(readable_python: None) -> None:
    done = lab("demo", uid=65534)

    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr
        == "waagent-lab: demo needs root (it makes namespaces, mounts and a loop device); try: sudo"
        " make demo\n"
    )


def test_a_dvd_is_written(tmp_path: Path) -> None:
    done = lab("dvd", str(tmp_path / "boot.iso"), "--host-name", "web1", "--user", "ada")

    assert (done.returncode, done.stdout) == (
        0,
        f"wrote {tmp_path}/boot.iso: host web1, user ada, 0 keys\n",
    )
    assert b"<HostName>web1</HostName>" in (tmp_path / "boot.iso").read_bytes()


def test_an_unknown_variant_is_named(tmp_path: Path) -> None:
    done = lab("dvd", str(tmp_path / "boot.iso"), "--variant", "round")

    assert done.returncode == 3
    assert "no DVD variant 'round'" in done.stderr and done.stderr.count("\n") == 1
