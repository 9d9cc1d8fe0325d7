"""Filters of system calls (seccomp(2)): rules become one classic BPF program."""

from __future__ import annotations

import ctypes
import os
import struct

from waagent.distro.fences.prctl import libc
from waagent.distro.fences.process_flags import FenceError, must
from waagent.distro.fences.system_calls import ARCHITECTURES, X86_64
from waagent.protocol.base.records import Record

# linux/seccomp.h, linux/filter.h
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_SECCOMP = {"x86_64": 317, "aarch64": 277}
ALLOW, TELL, _ERROR = 0x7FFF0000, 0x7FC00000, 0x00050000
"""TELL: whoever holds the listener decides."""
_LOAD, _AND, _JUMP, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000
_WHOLE = 0xFFFFFFFF


class Rule(Record):
    """What happens to the call ``number``: ``action``, when ``argument`` (its low half, masked) is
    one of ``values``, or with ``otherwise`` none of them. Without an argument: always.
    """

    number: int
    action: int
    argument: int | None = None
    values: tuple[int, ...] = ()
    mask: int = _WHOLE
    otherwise: bool = False


def error(number: int) -> int:
    """The action that lets a call fail with this errno."""
    return _ERROR | number


def architecture() -> int:
    """Ours, as the kernel numbers it. Raises FenceError where no table of system calls is known."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        raise FenceError(
            f"no filter of system calls for {machine}",
            "this machine",
            "x86_64 and aarch64 have one",
        )
    return ARCHITECTURES[machine]


def program(rules: tuple[Rule, ...], native: int, foreign: int) -> bytes:
    """The program of ``rules``, the first that fits deciding; what fits none is allowed.

    ``foreign`` is the action for calls of another architecture (32 bit, x32) than ``native``.
    """
    code = [
        _step(_LOAD, _ARCHITECTURE_AT),
        _step(_EQUAL, native, 1, 0),
        _step(_RETURN, foreign),
    ]
    if native == X86_64:
        code += [_step(_LOAD, _NUMBER_AT), _step(_ANY_BIT, _X32, 0, 1), _step(_RETURN, foreign)]
    for rule in rules:
        code += _block(rule)
    return b"".join([*code, _step(_RETURN, ALLOW)])


def _block(rule: Rule) -> list[bytes]:
    """Ends where the next rule begins; every jump of it leads to its return or there."""
    test = []
    if rule.argument is not None:
        test = [_step(_LOAD, _ARGUMENTS_AT + 8 * rule.argument), _step(_AND, rule.mask)]
        for behind in reversed(range(len(rule.values))):
            test.append(_step(_EQUAL, rule.values[-1 - behind], behind + 1, 0))
        if not rule.otherwise:
            test.append(_step(_JUMP, 1))
    return [
        _step(_LOAD, _NUMBER_AT),
        _step(_EQUAL, rule.number, 0, len(test) + 1),
        *test,
        _step(_RETURN, rule.action),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value & _WHOLE)


def install(code: bytes, *, listens: bool = False) -> int:
    """Put the program before every further system call of this process and of all that it starts.

    With ``listens`` the descriptor on which `TELL` calls are asked (seccomp_unotify(2)); else 0.
    Needs no_new_privs or CAP_SYS_ADMIN. Raises FenceError.
    """
    body = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HP", len(code) // 8, ctypes.addressof(body))
    done = libc.syscall(
        ctypes.c_long(_SECCOMP[os.uname().machine]),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_NEW_LISTENER if listens else 0),
        ctypes.create_string_buffer(head, len(head)),
    )
    must(done >= 0, "the filter of system calls is not taken")
    return int(done)
