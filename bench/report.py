"""From figures to `docs/performance.md` and its picture; pure but for `write`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measured quantity: ours, the others' in the order of the table's columns (None: they have
    no such thing), the budget as text (empty: none), and whether it is kept.
    """

    what: str
    unit: str
    ours: float
    others: tuple[float | None, ...]
    budget: str = ""
    is_kept: bool = True
    places: int = 1
    """Digits behind the point."""


@dataclass(frozen=True)
class Table:
    """Ours beside others, measured in one run."""

    title: str
    others: tuple[str, ...]
    rows: tuple[Row, ...]


def cells(table: Table) -> list[list[str]]:
    """Heading and rows: what, unit, ours, the others', our share of each, the budget, kept or
    not.
    """
    shares = [f"ours / {name}" for name in table.others]
    heading = ["what", "unit", "ours", *table.others, *shares, "budget", "kept"]
    lines = [heading]
    for row in table.rows:
        figures = [_figure(value, row.places) for value in (row.ours, *row.others)]
        ratios = ["-" if not other else f"{row.ours / other:.2f}" for other in row.others]
        kept = "" if not row.budget else "yes" if row.is_kept else "NO"
        lines.append([row.what, row.unit, *figures, *ratios, row.budget, kept])
    return lines


def _figure(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def as_text(tables: tuple[Table, ...]) -> str:
    """The tables for a terminal."""
    parts = []
    for table in tables:
        lines = cells(table)
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        parts.append(table.title)
        parts += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in lines
        ]
        parts.append("")
    return "\n".join(parts)


def as_markdown(tables: tuple[Table, ...], machine: str) -> str:
    """`docs/performance.md`."""
    body = ""
    for table in tables:
        heading, *rows = cells(table)
        body += f"\n## {table.title}\n\n| {' | '.join(heading)} |\n" + "|---" * len(heading) + "|\n"
        body += "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("| NO |", "| **no** |")
    return f"{_ABOUT.format(machine=machine)}{body}{_NOTES}"


_ABOUT = """# Performance

Written by `make bench`; every figure of one run, each agent in the throw-away machine of `lab/`.
Ratios are what to compare: absolute times move with the machine.

Machine: {machine}
"""
_NOTES = """
Restart latency: SIGKILL of a worker that has been READY for more than 5 s until its successor has
said `hello` (rivals, with four stub workers that import msgpack and zmq and do nothing: until the
new stub has written its pid). Idle: goal state polled and status sent at the default period; of
several windows the one with least CPU, since what else the machine does can only add to it. PSS
and idle figures are those of supervisor, zygote and all resident workers with an extension
enabled.

The predecessor is Azure/WALinuxAgent from a checkout of its public repository (`make bench
PEER=/path`), unmodified, on the same emulated platform. "Fetched" is the platform's first answer
that carried the new goal state, "reported" the first status blob in which every extension is a
success. CPU for 20 extensions counts all processes of the machine until a second after the
report, the extensions' own commands included.

![restart latency](performance.svg)
"""


def as_svg(series: dict[str, tuple[float, ...]]) -> str:
    """Restart latencies on a logarithmic axis, one dot a kill, a bar at each median."""
    import math

    left, top, width, height, low, high = 120, 40, 560, 56, 5.0, 5000.0

    def x_of(value_ms: float) -> float:
        return left + width * (math.log10(max(low, min(high, value_ms))) - math.log10(low)) / (
            math.log10(high) - math.log10(low)
        )

    total = top + height * len(series) + 40
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{total}"'
            ' font-family="sans-serif" font-size="13">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        (
            '<text x="120" y="22" font-weight="bold">Restart latency after SIGKILL of a worker, ms'
            " (logarithmic)</text>"
        ),
    ]
    for tick in (10, 100, 1000):
        parts.append(
            f'<line x1="{x_of(tick):.0f}" y1="{top}" x2="{x_of(tick):.0f}" y2="{total - 34}"'
            ' stroke="#ccc"/>'
        )
        parts.append(
            f'<text x="{x_of(tick):.0f}" y="{total - 16}" text-anchor="middle">{tick}</text>'
        )
    for index, (name, values) in enumerate(series.items()):
        middle = top + height * index + height / 2
        parts.append(f'<text x="{left - 10}" y="{middle + 4:.0f}" text-anchor="end">{name}</text>')
        parts += [
            f'<circle cx="{x_of(value):.1f}" cy="{middle:.0f}" r="4" fill="#1f77b4"'
            ' fill-opacity="0.4"/>'
            for value in values
        ]
        median = sorted(values)[len(values) // 2]
        x, above, below = f"{x_of(median):.1f}", f"{middle - 14:.0f}", f"{middle + 14:.0f}"
        parts.append(
            f'<line x1="{x}" y1="{above}" x2="{x}" y2="{below}" stroke="#d62728" stroke-width="2"/>'
        )
        parts.append(
            f'<text x="{x}" y="{middle - 18:.0f}" text-anchor="middle"'
            f' fill="#d62728">{median:.0f}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def write(
    folder: Path, tables: tuple[Table, ...], series: dict[str, tuple[float, ...]], machine: str
) -> None:
    """Put tables and picture into ``folder``."""
    (folder / "performance.md").write_text(as_markdown(tables, machine))
    (folder / "performance.svg").write_text(as_svg(series))
