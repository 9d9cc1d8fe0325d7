"""What `waagent -start`, `-stop` and `-reload` do: leave a guardian behind, and speak to the
running supervisor.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Sequence

from waagent.distro import our_python, processes
from waagent.distro.paths import Paths
from waagent.protocol import control, state_table

ANSWER_S = 5.0
END_S = 60.0  # above the supervisor's own limit for stopping its workers


def running_pid(paths: Paths) -> int | None:
    """The pid of the supervisor that runs below this root, if one does."""
    try:
        descriptor = os.open(paths.state, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        table = state_table.parse_table(state_table.read_state(descriptor))
    except state_table.StateError:
        return None
    finally:
        os.close(descriptor)
    if table.boot_id != processes.boot_id() or table.pid is None or table.start_ticks is None:
        return None
    return table.pid if processes.is_alive(table.pid, table.start_ticks) else None


def write_pid_file(paths: Paths, option: str) -> None:
    """Pid.File: this process, which becomes the supervisor. For scripts of others; nobody of ours
    reads it, and a place that cannot be written costs nothing else.
    """
    if not option.startswith("/"):
        return
    place = paths.under(option)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{os.getpid()}\n", encoding="ascii")


def remove_pid_file(paths: Paths, option: str) -> None:
    """After a stop."""
    if option.startswith("/"):
        with contextlib.suppress(OSError):
            paths.under(option).unlink(missing_ok=True)


def own_command(words: Sequence[str]) -> list[str]:
    """The argv that runs `waagent` with ``words`` by this interpreter and from this place, whatever
    the directory.
    """
    return our_python.argv("waagent.supervisor.commands.main", *words)


def leave_guardian(paths: Paths, words: Sequence[str]) -> None:
    """Start the guardian detached from this session; it starts the daemon and starts it again when
    it dies.
    """
    for folder in (paths.run, paths.locks):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    argv = our_python.argv(
        "waagent.supervisor.commands.guardian",
        str(paths.locks / "guardian"),
        *own_command(words),
        title="guardian",
    )
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.chdir("/")
            os.execv(argv[0], argv)
        os._exit(0)
    os.waitpid(child, 0)


def ask(paths: Paths, kind: str, *, wait_for_end: bool) -> str:
    """Send ``kind`` to the supervisor; an empty text when it was accepted, else what is wrong in
    one line.
    """
    place = str(paths.control_socket)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(ANSWER_S)
        pid = running_pid(paths)
        try:
            connection.connect(place)
            connection.send(control.pack(kind))
            answer = control.unpack(connection.recv(control.PACKET_LIMIT_BYTES))
        except (OSError, control.ControlError) as error:
            return f"the supervisor does not answer: {place}, {error}: see waagent-ps"
    if answer.get("type") in ("error", "refused"):
        return (
            f"-{kind} was refused:"
            f" {answer.get('reason') or answer.get('text') or 'no reason given'}: see waagent-ps"
        )
    deadline = time.monotonic() + END_S
    while wait_for_end and pid is not None and running_pid(paths) == pid:
        if time.monotonic() > deadline:
            return f"pid {pid} has not ended after {END_S:.0f} s: {place}: see waagent-ps"
        time.sleep(0.05)
    return ""
