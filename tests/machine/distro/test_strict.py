"""A hostile command under `strict`: what it tries is denied, and named; what it was given it has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waagent.distro.operations import launch, records

TRY = "/usr/bin/python3 -I -S -c"
ESCAPES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for name, call in {
    "unmount": lambda: libc.umount2(HIDDEN.encode(), 2),
    "remount": lambda: libc.mount(b"none", b"/", None, 32 | 4096, None),
    "namespace": lambda: libc.setns(os.open("/proc/self/ns/mnt", os.O_RDONLY), 0),
    "unshare": lambda: libc.unshare(0x00020000),
    "user": lambda: libc.unshare(0x10000000),
    "chroot": lambda: libc.chroot(b"/proc/1/root"),
}.items():
    done = call()
    print(name, "worked" if done == 0 else os.strerror(ctypes.get_errno()))
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library with our handler, another one, and the transport key."""
    folder = tmp_path / "lib"
    for name, text in (
        ("transport/TransportPrivate.pem", "key"),
        ("Other-1.0/config/0.settings", "theirs"),
        ("Mine-1.0/config/0.settings", "mine"),
        ("AA.prv", "certificate"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def strict(library: Path, *, network: bool = False, **more: tuple[str, ...]) -> launch.Sandbox:
    return launch.Sandbox(
        "strict",
        hidden=(str(library), "/run"),
        writable=(str(library / "Mine-1.0"), *more.get("writable", ())),
        readable=(str(library / "AA.prv"),),
        capabilities=more.get("capabilities", ()),
        network=network,
    )


def said(seen: records.Observation) -> str:
    return (seen.stdout.head + seen.stderr.head).decode()


def run(bench, library: Path, command: str, **more: object) -> records.Observation:  # type: ignore[no-untyped-def]
    sandbox = more.pop("sandbox", None) or strict(library)
    seen = bench.run(command, sandbox=sandbox, cwd=str(library / "Mine-1.0"), **more)
    assert not seen.error, seen.error
    return seen


@pytest.mark.parametrize(
    ("attempt", "named"),
    [
        ("echo x > /etc/waagent-test", "write /etc/waagent-test"),
        ("echo x > /usr/bin/ls", "write /usr/bin/ls"),
        ("mkdir /var/lib/waagent-test", "make /var/lib/waagent-test"),
        (
            f"{TRY} 'import socket; socket.create_connection((\"192.0.2.1\", 443), 3)'",
            "connect 192.0.2.1:443",
        ),
        (
            f"{TRY} 'import ctypes, sys; c = ctypes.CDLL(None);"
            ' sys.exit(c.syscall(175, b"\\0", 1, b"") == 0 or 7)\'',
            "load a kernel module",
        ),
        (
            f"{TRY} 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, PID, 0, 0) == 0 or 7)'",
            "trace a process",
        ),
        ("cat LIB/transport/TransportPrivate.pem", "read LIB/transport/TransportPrivate.pem"),
        ("cat LIB/Other-1.0/config/0.settings", "read LIB/Other-1.0/config/0.settings"),
        (
            f"{TRY} 'import socket; socket.socket(socket.AF_UNIX).connect(\"/run/x\")'",
            "local socket",
        ),
    ],
)
def test_each_attempt_is_denied_and_named(bench, library: Path, attempt: str, named: str) -> None:
    attempt = attempt.replace("LIB", str(library)).replace("PID", str(os.getpid()))

    seen = run(bench, library, f"{attempt}; echo left with $?")

    assert "left with 0" not in said(seen)
    assert named.replace("LIB", str(library)) in seen.denied, (seen.denied, said(seen))
    assert not os.path.exists("/etc/waagent-test")


def test_what_was_tried_first_changes_nothing(bench, library: Path) -> None:
    script = ESCAPES.replace("HIDDEN", repr(str(library)))
    (library / "Mine-1.0/escape.py").write_text(script)

    seen = run(
        bench,
        library,
        f"/usr/bin/python3 -I -S escape.py; echo x > /etc/waagent-test;"
        f" cat {library}/transport/TransportPrivate.pem && echo read; true",
    )

    text = said(seen)
    assert "worked" not in text and "read\n" not in text, text
    assert text.count("Operation not permitted") == 6, text
    assert f"unmount {library}" in seen.denied and "mount /" in seen.denied, seen.denied
    assert "enter a namespace" in seen.denied and "make a namespace (2 times)" in seen.denied
    assert "write /etc/waagent-test" in seen.denied


def test_it_sees_and_signals_nobody_else(bench, library: Path) -> None:
    seen = run(
        bench,
        library,
        f"ls /proc | grep -c '^[0-9]'; kill -9 {os.getpid()} || echo unreachable;"
        " grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; id -u; ls /sys/class/net",
    )

    lines = said(seen).splitlines()
    assert int(lines[0]) <= 5
    assert any("unreachable" in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith(("Cap", "NoNew", "Secc"))] == [
        "0000000000000000",
        "0000000000000000",
        "1",
        "2",
    ]


def test_it_has_what_it_was_given(bench, library: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()

    seen = run(
        bench,
        library,
        f"set -e; echo a > kept; echo b > {given}/b; echo c > /tmp/c; cat config/0.settings;"
        f" cat {library}/AA.prv; ls {library}; pwd; grep CapEff /proc/self/status;"
        " echo out > /dev/stdout; echo > /dev/null; head -c 4 /dev/urandom | wc -c; exit 3",
        sandbox=strict(library, writable=(str(given),), capabilities=("CHOWN",)),
    )

    assert seen.exit_code == 3, said(seen)
    assert seen.denied == ()
    assert (library / "Mine-1.0/kept").read_text() == "a\n"
    assert (given / "b").read_text() == "b\n"
    assert not Path("/tmp/c").exists()
    assert said(seen).splitlines() == [
        "minecertificateAA.prv",
        "Mine-1.0",
        str(library / "Mine-1.0"),
        "CapEff:\t0000000000000001",
        "out",
        "4",
    ]


def test_it_ends_by_its_signal_and_what_it_left_stays(bench, library: Path, wait_for) -> None:
    seen = run(
        bench,
        library,
        "(sleep 0.5; echo x > /etc/waagent-test 2>/dev/null; echo y > late; exec sleep 300)"
        " > /dev/null 2>&1 & kill -USR1 $$",
    )

    assert records.describe_end(seen) == "Terminated by signal 10 (SIGUSR1)"
    # its system calls are answered, although the command has ended
    wait_for((library / "Mine-1.0/late").exists)


def test_at_the_limit_the_whole_box_is_gone(bench, library: Path) -> None:
    seen = run(bench, library, "trap '' TERM; setsid sleep 1000 & sleep 1000", deadline_s=1.0)

    assert seen.timed_out
    assert records.describe_end(seen).startswith("Timeout(1)")


def test_a_box_that_cannot_be_made_runs_nothing(bench, library: Path) -> None:
    sandbox = strict(library)._replace(capabilities=("NOT_A_CAPABILITY",))
    mark = library / "Mine-1.0/ran"

    seen = bench.run("echo x > ran", sandbox=sandbox, cwd=str(library / "Mine-1.0"))

    assert seen.error and "NOT_A_CAPABILITY" in seen.error
    assert not mark.exists()
