"""The zygote: a small process that has every import of a worker done and forks workers within
milliseconds.

Exec'd by the supervisor with one end of a socketpair and nothing else; it holds no
state. One packet in (an order, with the descriptors of one worker), one packet out: `forked`,
`failed` or `upgrade`; the last one also unasked, when the package's folder changes. It never opens
a zmq context, so that it stays fit to fork. Killed here: the supervisor execs a new one, running
workers notice nothing.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from waagent.distro.fences import prctl, process_flags
from waagent.distro.folder_watch import FolderWatch
from waagent.protocol import control
from waagent.supervisor.zygote import worker_setup
from waagent.supervisor.zygote.contract import CHANNEL, build_id

if TYPE_CHECKING:
    from waagent.protocol.worker_start import WorkerStart

_ORDER_DESCRIPTORS = 5  # gate, stack, log, listener, handover
# an installation is over when its folder has been still for so long, or has taken so long
_STILL_S, _LONGEST_S = 1.0, 6.0
_PRELOADED = ("waagent.distro.run",)  # what workers load when they need it: here it is shared


def main() -> None:
    """Serve orders until the supervisor goes away: PACKAGE BUILD SUPERVISOR_PID ENTRY MODULE...

    ENTRY is `module:function` of what a worker runs, called with its name and WorkerStart. Each
    MODULE is a worker's own: loaded here once, its code and objects are shared pages in every
    worker.
    """
    package, build, supervisor_pid, entry, *modules = sys.argv[1:]
    prctl.set_name("waagent-zygote")
    process_flags.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != int(supervisor_pid):
        return
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=CHANNEL)
    channel.set_inheritable(False)
    run = _load(entry, modules)
    environment = worker_setup.environment(os.environ)
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    environment["WAAGENT_NOFILE"] = ":".join(map(str, nofile))  # ours are lower than init's
    os.environ.clear()
    os.environ.update(environment)
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, pages shared with the workers
    channel.send(control.pack("up", build=build))
    _serve(channel, Path(package), build, run)


def _load(entry: str, modules: list[str]) -> Callable[[str, WorkerStart], None]:
    """Import all that workers use; what a worker runs."""
    module, function = entry.split(":")
    run: Callable[[str, WorkerStart], None] = getattr(importlib.import_module(module), function)
    for name in (*_PRELOADED, *modules):
        try:
            importlib.import_module(name)
        # whatever a module does: that worker's trouble, it says so at its start
        except Exception as error:
            print(
                f"zygote: {name} cannot be loaded beforehand: {error!r}",
                file=sys.stderr,
                flush=True,
            )
    return run


def _serve(
    channel: socket.socket, package: Path, build: str, run: Callable[[str, WorkerStart], None]
) -> None:
    """Take orders until the supervisor's end of the channel is closed."""
    watch = FolderWatch(package)
    watch_until = 0.0
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    if watch.fileno() >= 0:
        poll.register(watch, select.POLLIN)
    while True:
        ready = {
            descriptor for descriptor, _ in poll.poll(_STILL_S * 1000 if watch_until else None)
        }
        if watch.drain():
            watch_until = watch_until or time.monotonic() + _LONGEST_S
        if watch_until and (not ready or time.monotonic() > watch_until):
            watch_until = 0.0
            _say_upgrade(channel, package, build)
        if channel.fileno() not in ready:
            continue
        packet, descriptors, _, _ = socket.recv_fds(
            channel, control.PACKET_LIMIT_BYTES, _ORDER_DESCRIPTORS
        )
        if not packet:
            return
        try:
            between = os.fork()
            if between == 0:
                _fork_worker(control.unpack(packet), descriptors, channel, package, build, run)
            reason = "fork: no process left" if os.waitpid(between, 0)[1] else ""
        except OSError as error:
            reason = str(error)
        for descriptor in descriptors:
            os.close(descriptor)
        if reason:
            order = control.unpack(packet)
            channel.send(
                control.pack("failed", name=order["name"], run=order["run"], reason=reason)
            )


def _say_upgrade(channel: socket.socket, package: Path, build: str) -> None:
    """Say so when another build lies in the folder; looked at by a child, whose pages are its
    own.
    """
    child = os.fork()
    if child == 0:
        try:
            if _build_on_disk(package) != build:
                channel.send(control.pack("upgrade"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _build_on_disk(package: Path) -> str:
    """`build_id`, or nothing when a file vanished meanwhile."""
    try:
        return build_id(package)
    except OSError:
        return ""


def _fork_worker(
    order: dict[str, Any],
    descriptors: list[int],
    channel: socket.socket,
    package: Path,
    build: str,
    run: Callable[[str, WorkerStart], None],
) -> NoReturn:
    """The process between the zygote and a worker: names the worker, which becomes the supervisor's
    child when this one ends.

    What can be done here is: whatever the zygote itself does, it writes to pages that it shares
    with the workers.
    """
    status = 1
    try:
        os.dup2(descriptors[2], 1)
        os.dup2(descriptors[2], 2)
        pid = os.fork()
        if pid == 0:
            worker_setup.live(order, descriptors, run)  # never returns
        if _build_on_disk(package) != build:
            os.kill(pid, signal.SIGKILL)  # it waits behind its gate
            channel.send(control.pack("upgrade"))
        else:
            channel.send(control.pack("forked", name=order["name"], run=order["run"], pid=pid))
        status = 0
    finally:
        os._exit(status)
