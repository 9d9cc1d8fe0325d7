"""What a signal is called, for people. Never raises: a number without a name stays a number."""

from __future__ import annotations

import signal

_KNOWN = (
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL",
    "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD",
    "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ",
    "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
)  # fmt: skip
# the numbers differ between systems, so they are asked for; some systems lack some of them
_NAMES = {int(getattr(signal, name)): name for name in _KNOWN if hasattr(signal, name)}
_FIRST_REAL_TIME = int(getattr(signal, "SIGRTMIN", 0))
_LAST_REAL_TIME = int(getattr(signal, "SIGRTMAX", -1))


def signal_name(number: int) -> str:
    """`9 (SIGKILL)`, `40 (SIGRTMIN+6)`; only the number where it has no name."""
    name = _NAMES.get(number, "")
    if not name and _FIRST_REAL_TIME <= number <= _LAST_REAL_TIME:
        name = f"SIGRTMIN+{number - _FIRST_REAL_TIME}"
    return f"{number} ({name})" if name else str(number)
