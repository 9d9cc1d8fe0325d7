"""Between the shim's fork and the command: the profile is put up. In the child; it loads what the
shim does not (ctypes: 1 MiB).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from waagent.distro.operations.shim.plan import Plan

STRICT = "strict"
_NOTIFY_SINCE = (5, 5)
"""Linux that lets a listener say "go on" (seccomp_unotify(2))."""
_CLOSED_UP_TO = 256


def enter(plan: Plan, hand_over: Callable[[int], None]) -> str:
    """Put up what the plan says; what is in force, in words. Returns in the process that is to
    become the command. Raises FenceError or OSError when `strict` cannot be had.

    ``hand_over`` gets the descriptor on which denials are told; the shim must answer on it.
    """
    if plan.values.get("profile") == STRICT:
        return _enter_strict(plan, hand_over)
    if not plan.lists["own_folder"]:
        return ""
    from waagent.distro.fences import mask

    agent = (*map(int, plan.lists["agent_pid"]), os.getppid())
    return mask.put_on(plan.lists["own_folder"], plan.lists["hidden"], agent)


def _enter_strict(plan: Plan, hand_over: Callable[[int], None]) -> str:
    from waagent.distro.fences import strict

    box = strict.Box(
        writable=tuple(plan.lists["writable"]),
        readable=tuple(plan.lists["readable"]),
        hidden=tuple(plan.lists["hidden"]),
        network=plan.values.get("network") == "1",
        capabilities=tuple(plan.lists["capability"]),
    )
    strict.make_box(box)
    status_reader, status_writer = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    first = os.fork()
    if first:
        _keep_only(nothing, status_reader)
        _end_like_the_command(status_reader, first)
    tells = _kernel() >= _NOTIFY_SINCE
    listener = strict.close_box(box, tells=tells)
    if tells:
        hand_over(listener)
        os.close(listener)
    command = os.fork()
    if command:
        _keep_only(nothing, status_writer)
        _be_first_process(status_writer, command)
    os.close(status_writer)
    os.chdir(plan.values["cwd"])
    network = "network" if box.network else "no network"
    named = "" if tells else ", denials not named (kernel before 5.5)"
    return f"strict, {network}, capabilities {' '.join(box.capabilities).lower() or 'none'}{named}"


def _keep_only(nothing: int, kept: int) -> None:
    """Let go of the command's streams and of everything else but ``kept``."""
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    for descriptor in range(3, _CLOSED_UP_TO):
        if descriptor != kept:
            try:
                os.close(descriptor)
            except OSError:
                pass  # there was none


def _end_like_the_command(status_reader: int, first: int) -> None:
    """Outside of the box: wait for the command's end, and end in the same way. Never returns."""
    said = os.read(status_reader, 8)
    status = int.from_bytes(said, "little") if said else os.waitpid(first, 0)[1]
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _be_first_process(status_writer: int, command: int) -> None:
    """As process 1 of the box: adopt and reap, until nobody is left; the others would die with us.
    Never returns.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(0)
        if pid == command:
            os.write(status_writer, status.to_bytes(8, "little"))
            os.close(status_writer)


def _kernel() -> tuple[int, int]:
    words = os.uname().release.split(".")
    digits = "".join(letter for letter in words[1] if letter.isdigit()) if len(words) > 1 else ""
    return int(words[0]), int(digits or 0)
