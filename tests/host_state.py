"""Is the host as it was? `host_state.py save FILE` notes it, `host_state.py compare FILE` prints
what differs (exit 1).

Looked at: accounts, packages, mounts, links, addresses, routes, rules, packet filters, kernel
settings, namespaces, cgroups, loop devices, every process but our own callers, and size, time, mode
and owner of each file below FOLDERS. Not looked at: a clone's .venv and .cache, and paths named
after `except` (for a machine on which others write meanwhile).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    str(ROOT),
    "/boot",
    "/dev/shm",
    "/etc",
    "/home",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/usr",
    "/var",
)
IGNORED = [
    "/var/lib/systemd/timers",
    "/var/lib/systemd/random-seed",
    "/var/log/journal",
    "/var/log/wtmp",
    "/var/log/lastlog",
    "/run/log",
    "/run/user",
    "/run/systemd",
    "/run/udev",
    "/run/utmp",
    "/etc/mtab",
    "/root/.cache",
    "/root/.pyenv",
    "/root/.bash_history",
    "/var/lib/dhcp",
    "/var/lib/ntp",
    "/var/lib/chrony",
    f"{ROOT}/.venv",
    f"{ROOT}/.cache",
    f"{ROOT}/.git",
]
SETTINGS = ("kernel", "net/core", "net/ipv4", "net/ipv6/conf/all", "vm", "fs/protected_*")
COUNTERS = (
    "random/",
    "ns_last_pid",
    "pty/nr",
    "tainted",
    "drop_caches",
    "nr_hugepages",
    "compact_memory",
    "/neigh/",
    "/route/",
    "stat_refresh",
    "perf_event_max_sample_rate",
    "hung_task_detect_count",
    "oops_count",
    "warn_count",
)
"""Files of /proc/sys that change by themselves, or must not be read."""
KERNEL_THREADS = 2  # their parent
SETTLE_S = 5.0


def text_of(*argv: str) -> str:
    """stdout of a tool; empty when it is missing."""
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        ).stdout
    except FileNotFoundError:
        return ""


def lines_of(path: str) -> list[str]:
    """The lines of a file; none when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def mounts() -> list[str]:
    return sorted(" ".join(line.split()[3:6]) for line in lines_of("/proc/self/mountinfo"))


def namespaces() -> list[str]:
    """Kinds and numbers of all namespaces that processes are in."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            for kind in ("mnt", "net", "pid", "uts", "ipc", "cgroup"):
                try:
                    found.add(os.readlink(f"/proc/{entry}/ns/{kind}"))
                except OSError:
                    continue  # it ended meanwhile
    return sorted(found)


def cgroups() -> list[str]:
    return sorted(folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "waagent" in folder)


def loops() -> list[str]:
    return sorted(
        f"{path}: {' '.join(lines_of(str(path)))}"
        for path in Path("/sys/block").glob("loop*/loop/backing_file")
    )


def routes() -> list[str]:
    """Of all tables, without the lifetimes of those that were announced."""
    said = text_of("ip", "route", "show", "table", "all") + text_of(
        "ip", "-6", "route", "show", "table", "all"
    )
    return [re.sub(r" expires \S+", "", line) for line in said.splitlines()]


def settings() -> list[str]:
    """Kernel settings and their values."""
    found = []
    for name in SETTINGS:
        for top in sorted(Path("/proc/sys").glob(name)):
            for file in (
                [top]
                if top.is_file()
                else sorted(path for path in top.rglob("*") if path.is_file())
            ):
                if not any(word in str(file) for word in COUNTERS):
                    found.append(
                        f"{file.relative_to('/proc/sys')} = {' '.join(lines_of(str(file)))[:200]}"
                    )
    return found


def filters() -> list[str]:
    """Rules of packet filters, counters left out."""
    return [
        line
        for line in (
            text_of("iptables-save").splitlines() + text_of("nft", "list", "ruleset").splitlines()
        )
        if line[:1] not in "#:"
    ]


def processes() -> list[str]:
    """Every process, with its start; not the kernel's own, not this one, and not those that called
    it.
    """
    seen: dict[int, tuple[int, str]] = {}
    for entry in os.listdir("/proc"):
        fields = (
            " ".join(lines_of(f"/proc/{entry}/stat")).rpartition(")")[2].split()
            if entry.isdigit()
            else []
        )
        if fields:
            words = " ".join(lines_of(f"/proc/{entry}/cmdline")).replace(
                "\0", " "
            ).strip() or " ".join(lines_of(f"/proc/{entry}/comm"))
            seen[int(entry)] = (
                int(fields[1]),
                f"pid {entry} started at tick {fields[19]}: {words[:160]}",
            )
    pid = os.getpid()
    while pid in seen:
        pid = seen.pop(pid)[0]
    return sorted(
        text
        for parent, text in seen.values()
        if parent not in (KERNEL_THREADS, os.getpid()) and "kthreadd" not in text
    )


def files() -> list[str]:
    """Size, time and mode of each file below FOLDERS."""
    found = []
    for top in FOLDERS:
        for folder, below, names in os.walk(top):
            below[:] = [
                name
                for name in below
                if f"{folder}/{name}" not in IGNORED and name != "__pycache__"
            ]
            for name in [*names, *below]:
                path = f"{folder}/{name}"
                try:
                    status = os.lstat(path)
                except OSError:
                    continue
                if path not in IGNORED:
                    size_time = "" if name in below else f" {status.st_size} {int(status.st_mtime)}"
                    found.append(f"{path} {status.st_mode:o} {status.st_uid}{size_time}")
    return sorted(found)


LOOKS: dict[str, Callable[[], list[str]]] = {
    "users": lambda: lines_of("/etc/passwd") + lines_of("/etc/group"),
    "packages": (
        lambda: text_of("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n").splitlines()
    ),
    "mounts": mounts,
    "links": lambda: sorted(os.listdir("/sys/class/net")),
    "addresses": lambda: text_of("ip", "-brief", "address").splitlines(),
    "routes": routes,
    "rules": lambda: text_of("ip", "rule").splitlines(),
    "filters": filters,
    "settings": settings,
    "netns": lambda: text_of("ip", "netns").splitlines(),
    "namespaces": namespaces,
    "cgroups": cgroups,
    "loops": loops,
    "host name": lambda: [os.uname().nodename],
    "processes": processes,
    "files": files,
}


def state(names: tuple[str, ...] = tuple(LOOKS)) -> dict[str, list[str]]:
    """All that is looked at, by name."""
    return {name: LOOKS[name]() for name in names}


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """One line each: what appeared and what is gone."""
    found = []
    for name, old in before.items():
        new = after.get(name, [])
        found += [f"{name}: appeared: {line}" for line in sorted(set(new) - set(old))]
        found += [f"{name}: gone: {line}" for line in sorted(set(old) - set(new))]
    return found


def main() -> int:
    """`save FILE` or `compare FILE`, both with `except PATH …`."""
    words = sys.argv[1:]
    if len(words) < 2 or words[0] not in ("save", "compare") or words[2:3] not in ([], ["except"]):
        print("usage: host_state.py save|compare FILE [except PATH...]", file=sys.stderr)
        return 2
    file = Path(words[1])
    IGNORED.extend([str(file.absolute()), *words[3:]])
    if sys.argv[1] == "save":
        file.write_text(json.dumps(state()), encoding="utf-8")
        print(f"noted the host's state in {file}")
        return 0
    before = json.loads(file.read_text(encoding="utf-8"))
    end = time.monotonic() + SETTLE_S
    while True:
        found = differences(before, state())
        if not found or time.monotonic() > end:
            break
        time.sleep(1.0)
    print("\n".join(found) if found else "the host is as it was")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
