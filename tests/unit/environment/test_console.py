"""Which lines of a boot go to the serial console."""

from __future__ import annotations

from waagent.workers.environment_monitor.console import FOR_TROUBLE, LINES_A_BOOT, choose

BOOT = "2026-11-28T05:00:00"


def a_line(level: str, number: int = 0) -> str:
    return f"2026-11-28T05:00:{number % 60:02}.000Z {level} provisioner[7] step {number}"


def test_a_boot_with_much_to_say_leaves_room_for_its_failure() -> None:
    lines = [a_line("INFO", number) for number in range(50)]
    error = a_line("ERROR", 51) + ": mkfs.xfs is missing"

    chosen = choose([*lines, error], 0, BOOT)

    assert chosen == [*lines[: LINES_A_BOOT - FOR_TROUBLE], error]


def test_never_more_than_the_limit_also_of_errors() -> None:
    lines = [a_line("ERROR", number) for number in range(50)]

    assert len(choose(lines, 0, BOOT)) == LINES_A_BOOT
    assert choose(lines, LINES_A_BOOT, BOOT) == []


def test_debug_tracebacks_and_earlier_boots_stay_out() -> None:
    lines = [a_line("DEBUG"), "  File x, line 3", "2026-11-27T00:00:00.000Z INFO a[1] old", ""]

    assert choose(lines, 0, BOOT) == []
