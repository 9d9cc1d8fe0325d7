"""What `ps` and `top -c` show of a process: `waagent: fabric_client` instead of its command line.

Standard library only, and of that `os`: each shim loads this.
"""

from __future__ import annotations

import os
import sys

LONGEST = 100
_PLAUSIBLE_BYTES = 1 << 20


def set_title(title: str) -> None:
    """Show ``waagent: <title>`` in place of the command line, cut at 100 characters or where the
    command line ended (proc_pid_cmdline(5)). Where the system cannot do it, nothing is changed.

    What is forked afterwards shows it too.
    """
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in f"waagent: {title}")
    text = text[:LONGEST]
    try:
        _write_through_proc(text.encode())
    except OSError:  # behind a fence, or not Linux
        try:
            from setproctitle import setproctitle
        except ImportError:
            if sys.platform == "linux":
                _write_by_address(text.encode())
        else:
            setproctitle(text)


def _write_through_proc(text: bytes) -> None:
    """Raises OSError without /proc."""
    with open("/proc/self/stat", "rb", buffering=0) as file:
        # arg_start and arg_end, the 48th and 49th field (proc(5)), counted from behind the name
        start, end = map(int, file.read().rpartition(b")")[2].split()[45:47])
    memory = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(memory, _filled(text, end - start), start)
    finally:
        os.close(memory)


def _write_by_address(text: bytes) -> None:
    """Without /proc: glibc and musl know where the command line begins, and behind it is the
    environment.
    """
    import ctypes  # 3 ms, in the one process that has no /proc

    library = ctypes.CDLL(None)
    try:
        start = ctypes.c_void_p.in_dll(library, "program_invocation_name").value or 0
        environment = ctypes.POINTER(ctypes.c_void_p).in_dll(library, "environ")
    except ValueError:  # another C library
        return
    end = (environment[0] or 0) if environment else 0
    if 0 < end - start < _PLAUSIBLE_BYTES:
        ctypes.memmove(start, _filled(text, end - start), end - start)


def _filled(text: bytes, size: int) -> bytes:
    """``text`` for an area of ``size`` bytes. The kernel shows as much as the first NUL lets it
    when the last byte is none.
    """
    return text[: size - 2].ljust(size - 1, b"\0") + b"\n"
