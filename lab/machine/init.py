"""The machine's PID 1: mounts, network, sshd, then the agent, restarted at once whenever it ends by
itself.

Standard library only. Says "hello" when it has its namespaces, waits for "go" (its `eth0` is there
then), makes the machine's root its own and goes on there, with the machine's own Python: nothing of
the host is open, mapped or mounted from then on. Says "ready" when the agent was started.

Later it takes orders on a socket, one line each: `start-agent`, `stop-agent`, `eject-dvd`,
`status`; each is answered by one JSON line.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import Any

LOG = "/var/log/init.log"
PYTHON = "/usr/bin/python3"
SELF, ORDER = "/.init.py", "/.order.json"
"""Copies for the second start; gone before anything of the machine runs."""
AGENT = ("/usr/sbin/waagent", "-daemon")
DHCP_LIMIT_S = 60.0
STOP_LIMIT_S = 30.0
FAST_S = 0.05
"""An agent that ended sooner than this is restarted after this pause: a broken one must not eat a
processor.
"""


def log(text: str) -> None:
    """One line to the init log; its time is seconds since the machine's host booted."""
    with open(LOG, "a", encoding="utf-8") as stream:
        stream.write(f"{time.monotonic():.3f} {text}\n")


def call(*argv: str, check: bool = True) -> int:
    """Run a tool to its end, its output on the console."""
    status = subprocess.call(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if status != 0 and check:
        raise SystemExit(f"{' '.join(argv)} ended with {status}")
    return status


def say(word: str, **facts: object) -> None:
    """One JSON line to the platform."""
    print(json.dumps({"said": word, **facts}), flush=True)


def mount(kind: str, target: str, options: str = "") -> None:
    """Mount a file system at ``target``, made when it is not there."""
    os.makedirs(target, exist_ok=True)
    call("mount", "-t", kind, *(["-o", options] if options else []), kind, target)


def mount_all(root: str, order: dict[str, Any]) -> None:
    """The machine's file systems below ``root``, then make it the root and let go of the host's."""
    mount("proc", f"{root}/proc")
    make_dev(f"{root}/dev", order["dvd_device"])
    mount("tmpfs", f"{root}/run", "mode=755,nosuid,nodev")
    mount("tmpfs", f"{root}/tmp", "mode=1777,nosuid,nodev")
    found = order["hierarchies"]
    mount("sysfs", f"{root}/sys", "nosuid,nodev,noexec,ro")
    if any(name for _, name, _ in found):
        mount("tmpfs", f"{root}/sys/fs/cgroup", "mode=755")
    for kind, name, options in found:
        mount(kind, f"{root}/sys/fs/cgroup/{name}".rstrip("/"), options)
    os.makedirs(f"{root}/run/old", exist_ok=True)
    call("pivot_root", root, f"{root}/run/old")
    os.chdir("/")
    call("umount", "--lazy", "/run/old")
    os.rmdir("/run/old")
    call("mount", "--make-rshared", "/")  # as systemd leaves it
    os.makedirs("/run/lock", exist_ok=True)


def make_dev(target: str, dvd_device: int) -> None:
    """A /dev with the usual few nodes, and the DVD drive when there is one."""
    mount("tmpfs", target, "mode=755,nosuid")
    for name, major, minor in (
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ):
        os.mknod(f"{target}/{name}", 0o666 | stat.S_IFCHR, os.makedev(major, minor))
        os.chmod(f"{target}/{name}", 0o666)
    for name, goal in (
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
        ("ptmx", "pts/ptmx"),
    ):
        os.symlink(goal, f"{target}/{name}")
    mount("devpts", f"{target}/pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", f"{target}/shm", "mode=1777,nosuid,nodev")
    insert_dvd(f"{target}/sr0", dvd_device)


def insert_dvd(node: str, device: int) -> None:
    """The drive's node; no device: no drive."""
    if os.path.exists(node):
        os.unlink(node)
    if device:
        os.mknod(node, 0o660 | stat.S_IFBLK, device)
        os.chown(node, 0, 24)  # Debian's group cdrom


def settle_cgroups(order: dict[str, Any]) -> str:
    """Where the agent is started: with v2 controllers a group of its own, as init would give it;
    else where we are.
    """
    if [(kind, name) for kind, name, _ in order["hierarchies"]] != [("cgroup2", "")]:
        return ""
    top = "/sys/fs/cgroup"
    for name in ("init", "waagent.service"):
        os.makedirs(f"{top}/{name}", exist_ok=True)
    with open(f"{top}/init/cgroup.procs", "w", encoding="ascii") as stream:
        stream.write("0")
    with open(f"{top}/cgroup.controllers", encoding="ascii") as stream:
        names = stream.read().split()
    with open(f"{top}/cgroup.subtree_control", "w", encoding="ascii") as stream:
        stream.write(" ".join(f"+{name}" for name in names))
    return f"{top}/waagent.service/cgroup.procs"


def make_network(dhcp: bool) -> None:
    """lo, and eth0 by a DHCP client that asks for no classless routes."""
    call("ip", "link", "set", "lo", "up")
    call("ip", "link", "set", "eth0", "up")
    if not dhcp:
        return
    with open("/etc/resolv.conf", "w", encoding="ascii"):
        pass
    call(
        "busybox",
        "udhcpc",
        "-i",
        "eth0",
        "-C",
        "-R",
        "-t",
        "20",
        "-T",
        "1",
        "-n",
        "-s",
        "/etc/udhcpc/default.script",
    )


def trust(authority: str) -> None:
    """Have the machine's programs believe the certificates of the lab's storage: the bundle for
    those that read one, a file of its own for those that look for the subject's hash.
    """
    if not authority:
        return
    own = "/usr/local/share/ca-certificates/waagent-lab.crt"
    os.makedirs(os.path.dirname(own), exist_ok=True)
    with open(own, "w", encoding="ascii") as stream:
        stream.write(authority)
    with open("/etc/ssl/certs/ca-certificates.crt", "a", encoding="ascii") as stream:
        stream.write(authority)
    argv = ("openssl", "x509", "-noout", "-subject_hash", "-in", own)
    name = subprocess.check_output(argv, stdin=subprocess.DEVNULL, text=True).strip()
    os.symlink(own, f"/etc/ssl/certs/{name}.0")


class Agent:
    """The supervisor and its restarts. Invariant: while it is wanted, one runs or is started at the
    next turn.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.wanted = False
        self.pid = 0
        self.started_at = 0.0
        self.starts = 0

    def start(self) -> None:
        """Start it; a log line says so."""
        pid = os.fork()
        if pid == 0:
            self._become()
        self.pid, self.started_at, self.starts, self.wanted = (
            pid,
            time.monotonic(),
            self.starts + 1,
            True,
        )
        log(f"agent started pid={pid} start={self.starts}")

    def _become(self) -> None:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.setsid()
            if self.place:
                with open(self.place, "w", encoding="ascii") as stream:
                    stream.write("0")
            console = os.open(
                "/var/log/agent-console.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
            )
            null = os.open("/dev/null", os.O_RDONLY)
            for target, source in ((0, null), (1, console), (2, console)):
                os.dup2(source, target)
            os.closerange(3, 64)
            os.execve(
                AGENT[0],
                AGENT,
                {
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "LANG": "C.UTF-8",
                },
            )
        except OSError as error:
            log(f"agent could not be started: {error}")
        os._exit(127)

    def ended(self, status: int) -> None:
        """Note how it ended; start it again at once when it is still wanted (exit 0 means that it
        wanted to end).
        """
        code = os.waitstatus_to_exitcode(status)
        text = f"signal {-code}" if code < 0 else f"exit {code}"
        log(f"agent ended pid={self.pid} {text}")
        self.pid = 0
        if code == 0:
            self.wanted = False
        if self.wanted:
            if time.monotonic() - self.started_at < FAST_S:
                time.sleep(FAST_S)
            self.start()

    def stop(self) -> bool:
        """SIGTERM and wait; False when it had to be killed."""
        self.wanted = False
        if not self.pid:
            return True
        os.kill(self.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_LIMIT_S
        while self.pid and time.monotonic() < end:
            reap(self)
            time.sleep(0.02)
        if not self.pid:
            return True
        os.kill(self.pid, signal.SIGKILL)
        return False


def reap(agent: Agent) -> None:
    """Collect everybody who ended, orphans too."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == agent.pid:
            agent.ended(status)


def obey(order: str, agent: Agent) -> dict[str, Any]:
    """Carry out one order of the control socket."""
    word, _, argument = order.strip().partition(" ")
    if word == "start-agent" and not agent.pid:
        agent.start()
        return {"pid": agent.pid}
    if word == "stop-agent":
        return {"ended_by_itself": agent.stop()}
    if word == "eject-dvd":
        insert_dvd("/dev/sr0", 0)
        return {}
    return {"pid": agent.pid, "starts": agent.starts, "argument": argument}


def serve(control: socket.socket, agent: Agent) -> None:
    """Wait for children and orders, for ever."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    os.set_blocking(read_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched: list[int] = [read_end, control.fileno()]
    while True:
        reap(agent)
        ready, _, _ = select.select(watched, [], [])
        if read_end in ready:
            os.read(read_end, 4096)
        if control.fileno() in ready:
            connection, _ = control.accept()
            with connection:
                connection.settimeout(5.0)
                try:
                    line = connection.recv(4096).decode()
                    connection.sendall(json.dumps(obey(line, agent)).encode() + b"\n")
                except OSError as error:
                    log(f"an order was lost: {error}")


def main() -> None:
    """Enter the machine's root; started again in there, bring the machine up and keep it."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        order = json.load(stream)
    if len(sys.argv) > 2:
        run_machine(order, socket.socket(fileno=int(sys.argv[2])))
    say("hello")
    sys.stdin.readline()
    control = socket.socket(socket.AF_UNIX)
    os.chdir(order["folder"])
    control.bind("init")  # relative: a long folder does not fit into a socket address
    control.listen(8)
    os.set_inheritable(control.fileno(), True)
    shutil.copyfile(__file__, order["root"] + SELF)
    shutil.copyfile(sys.argv[1], order["root"] + ORDER)
    mount_all(order["root"], order)
    words = [PYTHON, "-I", "-S", SELF, ORDER, str(control.fileno())]
    os.execv(PYTHON, words)


def run_machine(order: dict[str, Any], control: socket.socket) -> None:
    """Bring the machine up inside its root and keep it."""
    for used in (SELF, ORDER):
        os.unlink(used)
    control.set_inheritable(False)
    socket.sethostname(order["host_name"])
    with open("/etc/hostname", "w", encoding="ascii") as stream:
        stream.write(order["host_name"] + "\n")
    place = settle_cgroups(order)
    make_network(order["dhcp"])
    trust(order["authority"])
    if order["sshd"]:
        call("/etc/init.d/ssh", "start", check=False)
    for path, text in order["files"].items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
    agent = Agent(place)
    if order["agent"]:
        agent.start()
    say("ready")
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    serve(control, agent)


if __name__ == "__main__":
    main()
