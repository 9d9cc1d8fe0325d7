"""From figures to `docs/performance.md` and its picture; pure but for `write`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measured quantity: ours, the rivals' (None: they have no such thing), the budget as text,
    and whether it is kept.
    """

    what: str
    unit: str
    ours: float
    supervisord: float | None
    circus: float | None
    budget: str
    kept: bool


def ratio(ours: float, theirs: float | None) -> str:
    """Ours as a share of theirs, or a dash."""
    return "-" if not theirs else f"{ours / theirs:.2f}"


def as_text(rows: tuple[Row, ...]) -> str:
    """The table for a terminal."""
    lines = [
        f"{'':44} {'ours':>9} {'supervisord':>12} {'circus':>9} {'/superv.':>9} {'/circus':>8} "
        " budget"
    ]
    for row in rows:
        theirs = [
            f"{value:.0f}" if value is not None else "-" for value in (row.supervisord, row.circus)
        ]
        lines.append(
            f"{row.what + ' [' + row.unit + ']':44} {row.ours:9.1f} {theirs[0]:>12} {theirs[1]:>9}"
            f" {ratio(row.ours, row.supervisord):>9} {ratio(row.ours, row.circus):>8}  {row.budget}"
            f" {'kept' if row.kept else 'NOT KEPT'}"
        )
    return "\n".join(lines)


def as_markdown(rows: tuple[Row, ...], machine: str) -> str:
    """`docs/performance.md`."""
    head = (
        "| what | unit | ours | supervisord | circus | ours / supervisord | ours / circus | budget"
        " | kept |\n" + "|---" * 9 + "|\n"
    )
    body = "".join(
        f"| {row.what} | {row.unit} | {row.ours:.1f} |"
        f" {'-' if row.supervisord is None else f'{row.supervisord:.1f}'} |"
        f" {'-' if row.circus is None else f'{row.circus:.1f}'} |"
        f" {ratio(row.ours, row.supervisord)} | {ratio(row.ours, row.circus)} | {row.budget} |"
        f" {'yes' if row.kept else '**no**'} |\n"
        for row in rows
    )
    return (
        "# Performance\n\nWritten by `make bench`; every figure of one run: the agent in the"
        " throw-away machine of `lab/`, supervisord and circus beside\nit with four stub workers"
        " that import msgpack and zmq and do nothing. Ratios are what to compare: absolute times"
        f" move with\nthe machine.\n\nMachine: {machine}\n\n{head}{body}\nRestart latency: SIGKILL"
        " of a worker that has been READY for more than 5 s until its successor has said"
        " `hello`\n(rivals: until the new stub has written its pid). Idle: goal state polled and"
        " status sent at the default period;\nof three windows of a minute (rivals: half a minute)"
        " the one with least CPU, since what else the machine does can only\nadd to"
        " it.\n\n![restart latency](performance.svg)\n"
    )


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
    folder: Path, rows: tuple[Row, ...], series: dict[str, tuple[float, ...]], machine: str
) -> None:
    """Put table and picture into ``folder``."""
    (folder / "performance.md").write_text(as_markdown(rows, machine))
    (folder / "performance.svg").write_text(as_svg(series))
