"""Fences as the kernel shows them; each is put up in a child."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waagent.distro import kernel
from waagent.distro.fences import capabilities, process_flags

HEAD = "import os, sys, signal\nfrom pathlib import Path\nfrom waagent.distro import kernel, run\nfrom waagent.distro.fences import capabilities, landlock, limits, prctl, process_flags\n"
ROOT = str(Path(__file__).resolve().parents[3])

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_child(code: str, *arguments: object) -> str:
    """What a child that runs ``code`` prints."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


STATUS = (
    "print(''.join(line for line in open('/proc/self/status') if line.startswith(('Cap', 'Uid',"
    " 'NoNew'))))\n"
)


def sets(text: str) -> dict[str, int]:
    return {
        line.split()[0]: int(line.split()[1], 16)
        for line in text.splitlines()
        if line.startswith("Cap")
    }


def test_root_keeps_only_the_roster_s_few_and_its_bounding_set() -> None:
    before = sets(in_child(STATUS))

    after = sets(in_child("capabilities.keep_capabilities(['CHOWN', 'CAP_NET_RAW'])\n" + STATUS))

    wanted = 1 << 0 | 1 << 13
    assert after["CapEff:"] == after["CapPrm:"] == wanted
    assert after["CapInh:"] == after["CapAmb:"] == 0
    assert after["CapBnd:"] == before["CapBnd:"]


def test_a_tool_that_a_fenced_root_worker_runs_has_what_tools_expect() -> None:
    before = sets(in_child(STATUS))

    tool = sets(
        in_child(
            "capabilities.keep_capabilities([])\nos.execv('/bin/cat', ['cat', '/proc/self/status'])"
        )
    )

    assert tool["CapEff:"] == before["CapBnd:"]


def test_an_unprivileged_worker_has_its_uid_and_only_what_it_keeps() -> None:
    text = in_child(
        "capabilities.drop_to(64511, 64512, [64510], ['NET_BIND_SERVICE'])\n"
        + STATUS
        + "print(os.getresgid(), os.getgroups())"
    )

    assert sets(text)["CapEff:"] == sets(text)["CapPrm:"] == 1 << 10
    assert sets(text)["CapAmb:"] == 0
    assert "Uid:\t64511\t64511\t64511\t64511" in text
    assert "(64512, 64512, 64512) [64510]" in text


def test_what_it_executes_has_nothing() -> None:
    tool = in_child(
        "capabilities.drop_to(64511, 64511, [], ['NET_BIND_SERVICE'])\nos.execv('/bin/cat', ['cat',"
        " '/proc/self/status'])"
    )

    assert sets(tool)["CapEff:"] == sets(tool)["CapPrm:"] == 0


def test_a_name_that_is_no_capability_is_refused() -> None:
    with pytest.raises(process_flags.FenceError):
        capabilities.capability_mask(["SYS_EVERYTHING"])


def test_names_read_back_are_those_that_were_kept() -> None:
    assert (
        in_child(
            "capabilities.keep_capabilities(['KILL', 'SYS_ADMIN'])\nprint(capabilities.capabilities_of_self())"
        )
        == "['KILL', 'SYS_ADMIN']\n"
    )


LOCKED = """
text = landlock.landlock([sys.prefix, sys.base_prefix, '/usr', '/lib', '/lib64', '/etc'], [sys.argv[1]], level=kernel.landlock_level())
print(text)
spool, outside = Path(sys.argv[1]), Path(sys.argv[2])
def attempt(name, call):
    try:
        call()
        print(name, 'allowed')
    except OSError as error:
        print(name, type(error).__name__)
attempt('write-spool', lambda: (spool / 'a').write_text('x'))
attempt('rename-spool', lambda: (spool / 'a').rename(spool / 'b'))
attempt('exec-spool', lambda: ((spool / 's').write_text('#!/bin/sh'), (spool / 's').chmod(0o755), os.execv(spool / 's', ['s'])))
attempt('write-outside', lambda: outside.write_text('x'))
attempt('truncate-outside', lambda: os.truncate(outside, 0))
attempt('read-outside', outside.read_text)
attempt('proc', lambda: open('/proc/self/status').read())
attempt('etc', lambda: open('/etc/passwd').read())
attempt('write-etc', lambda: open('/etc/passwd', 'a').close())
attempt('null', lambda: open('/dev/null', 'w').write('x'))
attempt('zero', lambda: open('/dev/zero', 'rb').close())
attempt('kill', lambda: os.kill(os.getppid(), 0))
attempt('exec', lambda: os.posix_spawn('/bin/true', ['true'], {}))
"""


def test_landlock_leaves_only_what_is_listed(tmp_path: Path) -> None:
    if not kernel.landlock_level():
        pytest.skip("this kernel has no landlock")
    (tmp_path / "spool").mkdir()
    (tmp_path / "outside").write_text("secret")

    said = in_child(LOCKED, tmp_path / "spool", tmp_path / "outside").splitlines()

    assert said[0] == f"landlock {kernel.landlock_level()}"
    seen = dict(line.split() for line in said[1:])
    allowed = {name for name, what in seen.items() if what == "allowed"}
    assert {"write-spool", "rename-spool", "etc", "null", "exec"} <= allowed
    refused = {"exec-spool", "write-outside", "read-outside", "proc", "write-etc", "zero"}
    refused |= {"truncate-outside"} if kernel.landlock_level() >= 3 else set()
    refused |= {"kill"} if kernel.landlock_level() >= 6 else set()
    assert not allowed & refused
    assert (tmp_path / "outside").read_text() == "secret"


@pytest.mark.parametrize("level", range(1, 8))
def test_the_rights_of_every_level_are_taken_by_this_kernel(level: int, tmp_path: Path) -> None:
    if kernel.landlock_level() < level:
        pytest.skip(f"this kernel's landlock has level {kernel.landlock_level()}")
    code = "print(landlock.landlock(['/usr'], [sys.argv[2]], level=int(sys.argv[1])))\n"

    assert in_child(code, level, tmp_path) == f"landlock {level}\n"


def test_landlock_switched_off_says_so() -> None:
    assert (
        in_child("print(landlock.landlock([], [], level=0)); open('/etc/passwd').close()")
        == "None\n"
    )


def test_the_child_dies_with_its_parent() -> None:
    code = """
reader, writer = os.pipe()
middle = os.fork()
if middle == 0:
    if os.fork() == 0:
        process_flags.set_parent_death_signal(signal.SIGKILL)
        os.close(reader)
        os.write(writer, b'r')
        signal.pause()
    signal.pause()
os.close(writer)
os.read(reader, 1)
os.kill(middle, signal.SIGKILL)
print(os.read(reader, 1))
"""
    assert in_child(code) == "b''\n"


def test_orphans_fall_to_a_subreaper() -> None:
    code = """
prctl.set_child_subreaper()
reader, writer = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() != int(sys.argv[1] or 0) and os.getppid() == 0: pass
        os.write(writer, b'x')
        os._exit(0)
    os._exit(0)
os.read(reader, 1)
print(len({os.wait()[0], os.wait()[0]}), run.is_child_subreaper())
"""
    assert in_child(code, 0) == "2 True\n"


def test_limits_memory_and_score_are_set() -> None:
    code = """
import resource
limits.set_limits(nofile=99, core_bytes=0, data_mib=300)
process_flags.set_dumpable(False)
process_flags.set_no_new_privileges()
limit = resource.getrlimit
print(limit(resource.RLIMIT_NOFILE), limit(resource.RLIMIT_CORE), limit(resource.RLIMIT_DATA)[0] >> 20)
print(kernel.set_oom_score(321), open('/proc/self/oom_score_adj').read().strip(), kernel.lock_memory())
"""
    assert in_child(code) == "(99, 99) (0, 0) 300\nTrue 321 True\n"


def test_the_fences_load_nothing_heavy() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from waagent.distro.fences import capabilities, landlock, limits, prctl;"
        " print(*sys.modules)"
    )

    loaded = set(
        subprocess.run(
            [sys.executable, "-S", "-c", code, ROOT], capture_output=True, text=True
        ).stdout.split()
    )

    assert "waagent.distro.fences.landlock" in loaded
    assert not loaded & {
        "subprocess",
        "logging",
        "dataclasses",
        "inspect",
        "typing",
        "json",
        "ctypes.util",
        "psutil",
    }
