"""What a strict command was denied, in words: the shim is asked about its system calls.

Paths are judged here only to be named: mounts and capabilities deny them, whatever is said here, so
a path that changes after it was read gains nothing (seccomp_unotify(2)). Calls that the filter
itself denies are answered with an error and never reach the kernel.

Only shims of strict operations load this.
"""

from __future__ import annotations

import errno
import fcntl
import os

from waagent.distro.fences.system_calls import (
    AARCH64,
    CALLS,
    CHANGE,
    CONNECT,
    DENY,
    OPEN,
    OPEN_HOW,
    SOCKET,
    X86_64,
    Call,
)
from waagent.distro.operations.shim.plan import Plan

# linux/seccomp.h
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE_BYTES, _ARGUMENTS_AT = 80, 32
_GO_ON = 1
_CWD = -100
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PATH_BYTES, _ADDRESS_BYTES = 4096, 28
_KINDS, _KIND_LETTERS = 50, 160
_FAMILIES = {1: "local socket", 17: "packet socket", 40: "VM socket"}
_INTERNET, _INTERNET_6 = 2, 10
_OWN = ("/dev", "/run", "/tmp", "/var/tmp")
"""Private to the box, and writable there."""


class Denials:
    """Invariant: every question is answered, so that no call of the command waits for ever."""

    def __init__(self, listener: int, plan: Plan) -> None:
        self.listener = listener
        self.said: dict[str, int] = {}
        """Words -> how often."""
        self._writable = (*_OWN, *plan.lists["writable"])
        self._readable = (*plan.lists["writable"], *plan.lists["readable"])
        self._hidden = plan.lists["hidden"]
        native = X86_64 if os.uname().machine == "x86_64" else AARCH64
        self._calls = {call.number(native): call for call in CALLS}

    def answer(self) -> None:
        """Take one question and answer it."""
        notice = bytearray(_NOTICE_BYTES)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, notice)
        except OSError:
            return  # whoever asked was killed
        number = int.from_bytes(notice[16:20], "little")
        pid = int.from_bytes(notice[8:12], "little")
        arguments = [
            int.from_bytes(notice[at : at + 8], "little")
            for at in range(_ARGUMENTS_AT, _NOTICE_BYTES, 8)
        ]
        call = self._calls.get(number)
        refusal = errno.EPERM
        if call is not None:
            try:
                words = self._words(call, pid, arguments)
            except (OSError, ValueError):
                words = call.words  # its memory could not be read
            refusal = 0 if call.kind in (OPEN, OPEN_HOW, CHANGE, CONNECT) else errno.EPERM
            if words:
                self._note(words)
        answer = bytes(notice[:8]) + bytes(8)
        answer += (-refusal).to_bytes(4, "little", signed=True)
        answer += (0 if refusal else _GO_ON).to_bytes(4, "little")
        try:
            fcntl.ioctl(self.listener, _SEND, bytearray(answer))
        except OSError:
            return  # it was killed while we looked

    def _note(self, words: str) -> None:
        plain = "".join(letter if letter.isprintable() else "?" for letter in words)
        plain = plain[:_KIND_LETTERS]
        if plain in self.said or len(self.said) < _KINDS:
            self.said[plain] = self.said.get(plain, 0) + 1

    def _words(self, call: Call, pid: int, arguments: list[int]) -> str:
        """What is denied of this call; empty: nothing."""
        if call.kind == SOCKET:
            family = arguments[0] & 0xFFFF
            return _FAMILIES.get(family, f"socket of family {family}")
        if call.kind == CONNECT:
            return _address_words(_memory(pid, arguments[1], _ADDRESS_BYTES))
        if call.path is None:
            return call.words
        path = _absolute(pid, call, arguments)
        if call.kind == DENY:
            return f"{call.words} {path}"
        if call.kind == CHANGE:
            is_there = call.words == "make" and os.path.lexists(path)
            return "" if is_there or self._may_write(path) else f"{call.words} {path}"
        flags = arguments[call.flags]
        if call.kind == OPEN_HOW:
            flags = int.from_bytes(_memory(pid, flags, 8), "little")
        if flags & _WRITES:
            return "" if self._may_write(path) else f"write {path}"
        is_hidden = _is_below(path, self._hidden) and not _is_below(path, self._readable)
        return f"read {path}" if is_hidden and path not in self._hidden else ""

    def _may_write(self, path: str) -> bool:
        """Whether the box lets it; also where the call fails in any case: its folder is not
        there.
        """
        words = path.split("/")
        if words[1:2] == ["proc"]:
            return not words[2:3] or words[2].isdigit() or words[2] in ("self", "thread-self")
        if _is_below(path, _OWN):
            return True
        real = os.path.realpath(path)
        return (
            _is_below(real, self._writable)
            or _is_below(real, ("/proc",))
            or not os.path.isdir(os.path.dirname(real))
        )


def _is_below(path: str, folders: tuple[str, ...] | list[str]) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in folders)


def _absolute(pid: int, call: Call, arguments: list[int]) -> str:
    """The path as the command means it. Raises OSError."""
    assert call.path is not None
    text = os.fsdecode(_memory(pid, arguments[call.path], _PATH_BYTES).partition(b"\0")[0])
    if not text.startswith("/"):
        number = arguments[call.at] & 0xFFFFFFFF if call.at >= 0 else None
        is_here = number is None or number - (1 << 32) == _CWD
        folder = os.readlink(f"/proc/{pid}/cwd" if is_here else f"/proc/{pid}/fd/{number}")
        text = f"{folder}/{text}"
    return "/" + os.path.normpath(text).lstrip("/")


def _memory(pid: int, address: int, size: int) -> bytes:
    """Up to ``size`` bytes of it. Raises OSError."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(memory, size, address)
    except OverflowError as error:
        raise OSError(errno.EFAULT, "no address") from error
    finally:
        os.close(memory)


def _address_words(address: bytes) -> str:
    """`connect 192.0.2.1:80`; empty for the loopback, and for what is not the Internet."""
    family, port = int.from_bytes(address[:2], "little"), int.from_bytes(address[2:4], "big")
    if family == _INTERNET and address[4] != 127:
        return f"connect {'.'.join(map(str, address[4:8]))}:{port}"
    if family == _INTERNET_6 and address[8:24] != bytes(15) + b"\1":
        words = [address[at : at + 2].hex().lstrip("0") or "0" for at in range(8, 24, 2)]
        return f"connect [{':'.join(words)}]:{port}"
    return ""
