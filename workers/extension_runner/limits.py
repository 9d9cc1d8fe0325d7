"""How long and how much a handler's commands may take: the table, and
`/etc/waagent/sandbox.d/<Name>.conf` over it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from waagent.protocol.base.records import Record
from waagent.protocol.configuration.lines import read_lines
from waagent.workers.extension_runner.sandbox_wishes import Wish, WishError, with_words

TIMEOUTS_S: Mapping[str, float] = MappingProxyType(
    {"install": 900, "update": 900, "disable": 900, "enable": 300, "uninstall": 300}
)
PIDS = 4096
STRICT_PIDS = 512  # a fork bomb ends there; an operator may say otherwise
LONGEST_S = 24 * 3600
FILE_LIMIT_BYTES = 64 * 1024

_TIME = re.compile(r"([0-9]{1,6})\s*(s|m|min|h)?")
_UNITS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_TIMEOUT_KEYS = {f"timeout.{operation}": operation for operation in TIMEOUTS_S}
_SECURITY_KEYS = ("profile", "writepaths", "capabilities", "network")
_SEPARATORS = re.compile(r"[\s,:]+")


class HandlerLimits(Record):
    """What holds for one handler's commands."""

    timeouts_s: Mapping[str, float] = TIMEOUTS_S
    memory_mib: int | None = None
    pids: int | None = None
    """None: PIDS while a command runs, no ceiling for what it leaves behind."""
    cpu_percent: int | None = None
    """Of one processor."""
    has_python_command: bool = False
    """Where the system has no `python`, the handler gets one."""
    wish: Wish = Wish()
    """The keys of security."""
    refusal: str = ""
    """Not empty: a key of security cannot be honoured, so no command runs; this is reported."""
    warnings: tuple[str, ...] = ()


def with_strict_ceilings(limits: HandlerLimits) -> HandlerLimits:
    """What a strict handler may use where the operator said nothing."""
    return limits if limits.pids is not None else limits._replace(pids=STRICT_PIDS)


def parse_limits(data: bytes, where: str) -> HandlerLimits:
    """The limits that a sandbox.d file asks for; what is wrong is named with file and line, and the
    default holds.
    """
    timeouts, memory_mib, pids, refusal = dict(TIMEOUTS_S), None, None, ""
    cpu_percent, has_python_command, wish = None, False, Wish()
    assignments, complaints = read_lines(data)
    warnings = [
        f"{where}:{complaint.line}: {complaint.key}: {complaint.problem}: {complaint.remedy}"
        for complaint in complaints
    ]
    for complaint, warning in zip(complaints, warnings):
        text = data.split(b"\n")[complaint.line - 1].strip().lower().decode("utf-8", "replace")
        if text.startswith(_SECURITY_KEYS):
            refusal = refusal or warning
    for line, key, value in assignments:
        folded, place = key.lower(), f"{where}:{line}: {key[:60]}"
        if value is None:
            continue
        if folded in _SECURITY_KEYS:
            words = [word for word in _SEPARATORS.split(value) if word]
            try:
                wish = with_words(wish, folded, words)
            except WishError as error:
                refusal = refusal or f"{place}={value[:60]}: {error}: correct or remove the line"
        elif folded in _TIMEOUT_KEYS and (seconds := _seconds(value)):
            timeouts[_TIMEOUT_KEYS[folded]] = seconds
        elif folded == "memorymaxmb" and value.isdecimal() and 0 < int(value) < 2**31:
            memory_mib = int(value)
        elif folded == "pidsmax" and value.isdecimal() and 0 < int(value) < 2**22:
            pids = int(value)
        elif folded == "pythoncommand" and value.lower() in ("y", "n"):
            has_python_command = value.lower() == "y"
        elif folded == "cpuquotapercent" and value.isdecimal() and 0 < int(value) <= 100_000:
            cpu_percent = int(value)
        else:
            warnings.append(
                f"{place}: {_complaint(folded)}: the default holds: correct or remove the line"
            )
    return HandlerLimits(
        timeouts, memory_mib, pids, cpu_percent, has_python_command, wish, refusal, tuple(warnings)
    )


def _complaint(key: str) -> str:
    if key == "pythoncommand":
        return "is y or n"
    known = key in _TIMEOUT_KEYS or key in ("memorymaxmb", "pidsmax", "cpuquotapercent")
    return "is no number in its limits" if known else "is not an option"


def _seconds(value: str) -> float:
    match = _TIME.fullmatch(value.lower())
    if match is None:
        return 0
    return min(int(match.group(1)) * _UNITS[match.group(2)], LONGEST_S)
