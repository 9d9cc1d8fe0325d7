"""Processes of our own Python: what they import, where they live, and what `ps` shows of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

from waagent.distro import kernel, our_python
from waagent.distro.fences import landlock

PROGRAM = """
import os, subprocess, sys

def shown():
    return subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(os.getpid())], stdout=subprocess.PIPE, check=True
    ).stdout.decode().rstrip("\\n")

def main():
    told = sys.argv[1:]
    if told[0] == "arguments":
        print(sys.argv, sys.flags.isolated, sys.flags.no_site, sorted(told))
    elif told[0] == "imports":
        import msgpack
        import waagent.protocol.control as control
        print(os.path.dirname(msgpack.__file__), os.path.dirname(control.__file__))
    elif told[0] == "forks":
        from waagent.distro.process_title import set_title
        reading, writing = os.pipe()
        if os.fork() == 0:
            set_title(told[1])
            os.write(writing, shown().encode())
            os._exit(0)
        print(os.read(reading, 4096).decode(), shown(), sep="\\n")
    elif told[0] == "waits":
        print("up", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "a_program.py").write_text(PROGRAM)
    return tmp_path


def said(program: Path, *arguments: str, title: str = "") -> str:
    argv = our_python.argv("a_program", *arguments, title=title, path=[str(program)])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_isolated_and_gets_its_arguments_as_they_are(program: Path) -> None:
    assert (
        said(program, "arguments", "", "a b:c", "ü")
        == "['a_program', 'arguments', '', 'a b:c', 'ü'] 1 1 ['', 'a b:c', 'arguments', 'ü']\n"
    )


def test_it_imports_from_where_we_import(program: Path) -> None:
    places = said(program, "imports").split()

    assert places[0] == os.path.dirname(msgpack.__file__)
    assert places[1].endswith("/waagent/protocol")


def test_ps_shows_the_title_and_a_forked_process_may_have_another_one(program: Path) -> None:
    lines = said(program, "forks", "worker x", title="zygote").splitlines()

    assert lines == ["waagent: worker x", "waagent: zygote"]


def test_no_title_is_longer_than_100_characters_or_holds_anything_but_ascii(program: Path) -> None:
    child, parent = said(program, "forks", "z" * 500, title="a\nb\x1b[31mü").splitlines()

    assert child == ("waagent: " + "z" * 500)[:100]
    assert parent == "waagent: a?b?[31m?"


def test_behind_a_fence_without_proc_the_title_is_shown_as_well(program: Path) -> None:
    if not kernel.landlock_level():
        pytest.skip("this kernel has no landlock")
    argv = our_python.argv(
        "a_program", "waits", title="transfer package Contoso.Hello", path=[str(program)]
    )
    readable = [
        *("/usr", "/lib", "/lib64", "/etc", str(program)),
        *(sys.prefix, sys.base_prefix, Path(our_python.__file__).resolve().parents[1]),
        Path(our_python.__file__).parents[2],
    ]
    fence = lambda: landlock.landlock(readable, [], level=kernel.landlock_level())  # noqa: E731

    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        preexec_fn=fence,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        line = Path(f"/proc/{child.pid}/cmdline").read_bytes()
        child.communicate(timeout=60)

    assert line == b"waagent: transfer package Contoso.Hello\0"
