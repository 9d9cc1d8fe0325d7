"""A worker with nothing but the control channel, for the supervisor's own tests; what it does is
said by its configuration.
"""

from __future__ import annotations

import faulthandler
import os
import select
import socket
import sys
import time
from typing import Any

from waagent.distro import run as tools
from waagent.distro.paths import Paths
from waagent.protocol import control
from waagent.protocol.base.log import Log
from waagent.protocol.worker_start import WorkerStart

DAEMON = """
import os, sys, time
told, telling = os.pipe()
if os.fork():
    os.close(telling)
    os.read(told, 1)  # the tool ends when its daemon has said who it is: READY comes after it
    os._exit(0)
os.setsid()
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
os.write(telling, b".")
time.sleep(600)
"""


def run(name: str, start: WorkerStart) -> None:
    """Hello, ready, heartbeats; ends at `stop` and when the supervisor is gone."""
    faulthandler.register(10, file=start.stack, all_threads=True)
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if "mute" in name:
        time.sleep(1000)
    line.connect(str(Paths(start.root).control_socket))
    line.send(control.pack("hello", build=start.build))
    told = control.unpack(line.recv(control.PACKET_LIMIT_BYTES))
    assert told["type"] == "configure", told
    behaviour: dict[str, Any] = told["configuration"]
    print(f"{name} configured {told['numbers']}", file=sys.stderr, flush=True)
    if "status" in behaviour and os.geteuid():
        os._exit(behaviour["status"])
    _leave_behind(behaviour, start)
    line.send(control.pack("ready"))
    for wanted in behaviour.get("wants", ()):
        line.send(control.pack("want", name=wanted, numbers=behaviour.get("numbers", [])))
    if "result" in behaviour:
        line.send(control.pack("done", summary=behaviour["result"]))
        return
    for kind in behaviour.get("commands", ()):
        line.send(control.pack(kind, name=name))
        print(f"{kind}: {control.unpack(line.recv(4096))}", file=sys.stderr, flush=True)
    if behaviour.get("hangs"):
        time.sleep(1000)
    _live(line, start, behaviour, Log(name))


def _live(line: socket.socket, start: WorkerStart, behaviour: dict[str, Any], log: Log) -> None:
    progress = said_lines = 0
    due = 0.0
    while True:
        wait = start.beat_s - time.monotonic() % start.beat_s
        if behaviour.get("chatters"):
            wait = 0.002
            log.info("line %d%s", said_lines, " of some length" * 20)
            said_lines += 1
        if select.select([line], [], [], wait)[0]:
            packet, descriptors, _, _ = socket.recv_fds(line, control.PACKET_LIMIT_BYTES, 1)
            if not packet:
                return
            said = control.unpack(packet)
            if said["type"] == "stop" and not behaviour.get("deaf"):
                return
            if said["type"] == "configure":
                for descriptor in descriptors:
                    os.dup2(descriptor, 1)
                    os.dup2(descriptor, 2)
                    os.close(descriptor)
                print(f"reconfigured {said['configuration']}", file=sys.stderr, flush=True)
            if said["type"] in ("log", "stack"):
                print("\n".join(said.get("lines") or [said["text"]]), file=sys.stderr, flush=True)
        elif time.monotonic() >= due:
            due = time.monotonic() + (start.beat_s if behaviour.get("chatters") else 0.0)
            progress += 1
            try:
                line.send(
                    control.pack("heartbeat", doing="beats", progress=progress), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                pass  # the supervisor is stopped


def _leave_behind(behaviour: dict[str, Any], start: WorkerStart) -> None:
    """A tool in our tools' place, and one that leaves a daemon, outside of it."""
    for kind, file in behaviour.get("tools", ()):
        tools.run(
            [sys.executable, "-I", "-c", DAEMON, file],
            deadline_s=20,
            place=start.outside if kind == "daemon" else start.place,
        )
    if "hoard_mib" in behaviour and not os.path.exists(behaviour["once"]):
        open(behaviour["once"], "w").close()
        print(len(b"x" * (behaviour["hoard_mib"] << 20)), file=sys.stderr, flush=True)
