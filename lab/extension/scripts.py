"""Lines of scripts that are known to fail on some machines: a table, and who looks for its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from waagent.protocol.base.records import Record


class Smell(Record):
    """What to look for in a line, and what to say."""

    pattern: re.Pattern[str]
    what: str
    remedy: str


_TOOLS = ("sudo", "lsof", "jq", "pkill", "curl", "wget")
SMELLS: tuple[Smell, ...] = (
    Smell(
        re.compile(r"/usr/sbin/waagent\b"),
        "/usr/sbin/waagent as a Python module",
        "bundle what you need: other agents have no such module",
    ),
    Smell(
        re.compile(r"/var/lib/waagent/(?!\$|\{|%)[A-Za-z]"),
        "a hard-coded path below /var/lib/waagent",
        "take folders from HandlerEnvironment.json",
    ),
    Smell(
        re.compile(r"/var/log/azure/[A-Za-z]"),
        "a hard-coded log folder",
        "take logFolder from HandlerEnvironment.json",
    ),
    Smell(
        re.compile(r"\bpkill\b.*-f|\bpgrep\b.*-f"),
        "a pattern on whole command lines may meet other processes",
        "keep a pid file",
    ),
    Smell(
        re.compile(r"^\s*(?:sudo\s+)?(?:reboot|shutdown|poweroff)\b"),
        "the VM is restarted under other handlers",
        "say in the status that a restart is needed",
    ),
    Smell(
        re.compile(r"\b(?:setsid|nohup)\b"),
        "work goes on after the command",
        "write a transitioning status first, and a terminal one at the end",
    ),
    Smell(
        re.compile(r"[\"']code[\"']\s*:\s*[\"']-?\d"),
        "the status code is a text",
        "write a number",
    ),
)


def findings(text: str, name: str, *, is_python: bool) -> Iterator[str]:
    """`warning: file:line: what: remedy` for each row that fits, once a file."""
    lines = text.splitlines()
    for smell in SMELLS:
        number = _first(lines, smell.pattern)
        if number:
            yield f"warning: {name}:{number}: {smell.what}: {smell.remedy}"
    if is_python:
        return
    for tool in _TOOLS:
        number = _first(lines, re.compile(rf"(?:^|[;&|(`]|\$\()\s*{tool}\s"))
        checks = rf"(?:command -v|which|type|hash|dpkg -s|install)\b.*\b{tool}\b"
        if number and not re.search(checks, text):
            yield f"warning: {name}:{number}: needs {tool}, not checked for: test with command -v"


def _first(lines: list[str], pattern: re.Pattern[str]) -> int:
    """Number of the first line that fits, comments apart; 0 without one."""
    for number, line in enumerate(lines, start=1):
        if not line.lstrip().startswith("#") and pattern.search(line):
            return number
    return 0
