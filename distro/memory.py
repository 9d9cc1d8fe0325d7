"""Memory of a process that is to stay, and of those that it forks."""

from __future__ import annotations

import ctypes

from waagent.distro.prctl import libc

_DONTNEED = 4  # MADV_DONTNEED
_clean: list[tuple[int, int]] = []
"""Where the libraries have code, and what nobody writes; forked processes have it at the same
place.
"""


def forget_read_only_files() -> None:
    """Unmap pages of libraries that only the loader has read: 0.7 MiB of symbols and strings.
    Whoever needs one faults it in again.

    Only mappings without a page of our own are touched (relocated ones have such), so nothing is
    lost; without /proc, nothing is done.
    """
    try:
        with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    start = end = 0
    for line in lines:
        word, _, rest = line.partition(" ")
        if not word.endswith(":"):  # `7f1c-7f1d r--p 0000 08:01 4711 /usr/lib/…`
            start, end = (int(number, 16) for number in word.split("-"))
            if rest.startswith("r-xp") and ".so" in rest:
                _clean.append((start, end))
            elif not (rest.startswith("r--p") and "/" in rest):
                start = end = 0
        elif word == "Anonymous:" and end and rest.split()[0] == "0":
            _clean.append((start, end))
            _forget(start, end)


def forget_start() -> None:
    """Unmap what of the libraries only the start has used, 1 MiB in four workers: the kernel maps
    64 KiB around each page used.

    Known only in what was forked from a process that has called `forget_read_only_files`: a fence
    may hide /proc.
    """
    for start, end in _clean:
        _forget(start, end)


def _forget(start: int, end: int) -> None:
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)
