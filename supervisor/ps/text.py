"""How `waagent-ps` writes durations, sizes, names and columns. Pure, plain ASCII."""

from __future__ import annotations

from collections.abc import Sequence

from waagent.protocol.base.records import Record

GREEN, YELLOW, RED, BOLD, PLAIN = "32", "33", "31", "1", ""

STATE_COLOURS = {
    "READY": GREEN,
    "DONE": GREEN,
    "done": GREEN,
    "success": GREEN,
    "STARTING": YELLOW,
    "INIT": YELLOW,
    "STOPPING": YELLOW,
    "BACKOFF": YELLOW,
    "running": YELLOW,
    "waiting": YELLOW,
    "HUNG": RED,
    "KILL": RED,
    "STUCK": RED,
    "PARKED": RED,
    "GONE": RED,
    "STOPPED": RED,
    "failed": RED,
    "killed": RED,
    "lost": RED,
}


class Column(Record):
    """One column: heading, smallest width, whether its cells stand at the right."""

    heading: str
    width: int
    is_right: bool = False


def plain(text: object) -> str:
    """``text`` in one line of printable ASCII."""
    return "".join(
        letter if " " <= letter <= "~" else "?" for letter in " ".join(str(text).split())
    )


def age(seconds: float | None) -> str:
    """A duration in at most six letters: 3s, 2m, 3h05m, 12d04h, 120d; `-` for none."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return (
        f"{whole // 86400}d{whole % 86400 // 3600:02}h"
        if whole < 100 * 86400
        else f"{whole // 86400}d"
    )


def exact(seconds: float | None) -> str:
    """A duration of an operation: 0.4s, 40s, 1m12s, 15m0s."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    if seconds < 60:
        return f"{int(seconds)}s"
    return f"{int(seconds) // 60}m{int(seconds) % 60}s" if seconds < 3600 else age(seconds)


def limit(seconds: float | None) -> str:
    """A time limit: 5m, 90s, 2h."""
    if not seconds:
        return "-"
    whole = int(seconds)
    if whole % 3600 == 0:
        return f"{whole // 3600}h"
    return f"{whole // 60}m" if whole % 60 == 0 else exact(seconds)


def size(kib: float | None) -> str:
    """Memory in at most four letters: 4.1M, 28M, 1.2G; `-` for none."""
    if kib is None:
        return "-"
    mib = kib / 1024
    if mib < 9.95:
        return f"{mib:.1f}M"
    return f"{mib:.0f}M" if mib < 1000 else f"{mib / 1024:.1f}G"


def tail_of(name: str, width: int) -> str:
    """``name``, or its end behind two dots: names of handlers differ at their end."""
    return name if len(name) <= width else ".." + name[-(width - 2) :]


def cut(line: str, width: int) -> str:
    """``line`` in at most ``width`` letters, blanks at its end left out."""
    return line[:width].rstrip()


def coloured(text: str, colour: str, is_colour: bool) -> str:
    """``text`` in ``colour``; words carry the whole meaning without it."""
    return f"\x1b[{colour}m{text}\x1b[0m" if is_colour and colour else text


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, is_colour: bool
) -> list[str]:
    """Heading and rows; the last column is cut at ``width``, the states in STATE_COLOURS get their
    colour.
    """
    widths = [
        max([column.width, *(len(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    ]
    lines = [_line(columns, [column.heading for column in columns], widths, width, False)]
    return lines + [_line(columns, row, widths, width, is_colour) for row in rows]


def _line(
    columns: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    width: int,
    is_colour: bool,
) -> str:
    padded = [
        cell.rjust(room) if column.is_right else cell.ljust(room)
        for column, cell, room in zip(columns, cells, widths)
    ]
    line = cut(" ".join(padded), width)
    if not is_colour:
        return line
    for index, cell in enumerate(cells):
        colour = STATE_COLOURS.get(cell, "")
        start = sum(widths[:index]) + index
        if colour and line[start : start + len(cell)] == cell:
            return line[:start] + coloured(cell, colour, True) + line[start + len(cell) :]
    return line
