"""Filters of system calls: what they say to a call, and that their numbers are the kernel's."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.fences import strict
from waagent.distro.fences.call_filter import ALLOW, TELL, Rule, error, program
from waagent.distro.fences.system_calls import AARCH64, BY_NAME, CALLS, X86_64

HEADERS = {
    X86_64: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    AARCH64: Path("/usr/include/asm-generic/unistd.h"),
}
FOREIGN = error(errno.ENOSYS)


def verdict(code: bytes, number: int, arguments: tuple[int, ...], architecture: int) -> int:
    """What the kernel would do: the few instructions that we use, carried out."""
    data = struct.pack("=iIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    steps, at, value = list(struct.iter_unpack("=HBBI", code)), 0, 0
    while True:
        operation, if_true, if_false, operand = steps[at]
        at += 1
        if operation == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x54:
            value &= operand
        elif operation == 0x05:
            at += operand
        elif operation == 0x15:
            at += if_true if value == operand else if_false
        elif operation == 0x45:
            at += if_true if value & operand else if_false
        else:
            assert operation == 0x06
            return int(operand)


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20, unique=True),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_a_rule_fits_the_values_it_names_or_all_others(
    values: list[int], asked: int, otherwise: bool
) -> None:
    rules = (Rule(7, error(1), 2, tuple(values), otherwise=otherwise), Rule(8, error(2)))
    code = program(rules, AARCH64, FOREIGN)

    assert (verdict(code, 7, (0, 0, asked), AARCH64) != ALLOW) == ((asked in values) != otherwise)
    assert (verdict(code, 7, (0, 0, values[-1]), AARCH64) == ALLOW) == otherwise
    assert verdict(code, 8, (), AARCH64) == error(2)
    assert verdict(code, 9, (0, 0, values[0]), AARCH64) == ALLOW


@pytest.mark.parametrize("native", [X86_64, AARCH64])
def test_strict_knows_no_other_architecture(native: int) -> None:
    code = program(strict.rules(native, network=True, tells=True), native, FOREIGN)

    assert verdict(code, 1, (), 0x40000003) == FOREIGN  # i386
    if native == X86_64:
        assert verdict(code, 1 | 0x40000000, (), native) == FOREIGN  # x32
        assert verdict(code, 1, (), native) == ALLOW


@pytest.mark.parametrize("native", [X86_64, AARCH64])
@pytest.mark.parametrize("tells", [True, False])
def test_strict_denies_namespaces_and_local_sockets_and_nothing_daily(
    native: int, tells: bool
) -> None:
    code = program(strict.rules(native, network=True, tells=tells), native, FOREIGN)
    denied = TELL if tells else error(errno.EPERM)

    def said(name: str, *arguments: int) -> int:
        number = BY_NAME[name].number(native)
        assert number is not None
        return verdict(code, number, arguments, native)

    assert said("clone", 0x00020000 | 17) == denied
    assert said("clone", 0x10000000 | 17) == denied
    assert said("clone", 0x01200011) == ALLOW
    assert said("clone3") == error(errno.ENOSYS)
    assert said("socket", 1, 1) == denied
    assert said("socket", 2, 1) == ALLOW
    assert said("socketpair", 1, 2) == said("socketpair", 1, 2 | 0o2000000) == denied
    assert said("socketpair", 1, 1 | 0o2000000) == ALLOW
    assert said("mount") == said("umount2") == said("setns") == said("ptrace") == denied
    assert said("connect") == ALLOW
    assert said("openat") == (TELL if tells else ALLOW)


@pytest.mark.parametrize("architecture", HEADERS)
def test_the_numbers_are_the_kernel_s(architecture: int) -> None:
    if not HEADERS[architecture].exists():
        pytest.skip(f"{HEADERS[architecture]} is not on this machine")
    text = HEADERS[architecture].read_text(encoding="ascii")
    known = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", text)
    }

    ours = {call.name: call.number(architecture) for call in CALLS}
    compared = {name: number for name, number in ours.items() if name in known}
    assert compared == {name: known[name] for name in compared}
    assert len(compared) > 50
