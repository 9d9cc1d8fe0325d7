"""Is the host as it was? `host_state.py save FILE` notes it, `host_state.py compare FILE` prints what differs (exit 1).

Looked at: accounts, packages, mounts, network, namespaces, cgroups, loop devices, processes of ours, and size and time of
each file below the folders that programs are installed to. A clone's .venv and .cache are not looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (str(ROOT), "/etc", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/bin", "/var/lib", "/run", "/opt", "/root", "/home", "/srv")
IGNORED = ("/var/lib/systemd/timers", "/var/lib/systemd/random-seed", "/run/log", "/run/user", "/run/systemd", "/run/udev", "/etc/mtab",
           "/root/.cache", "/root/.pyenv", "/run/utmp", "/root/.bash_history", "/var/lib/dhcp", "/var/lib/ntp", "/var/lib/chrony",
           f"{ROOT}/.venv", f"{ROOT}/.cache", f"{ROOT}/.git")
OURS = ("waagent", "udhcpc", "dnsmasq")
SETTLE_S = 5.0


def text_of(*argv: str) -> str:
    """stdout of a tool; empty when it is missing."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}).stdout
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
    return sorted(f"{path}: {' '.join(lines_of(str(path)))}" for path in Path("/sys/block").glob("loop*/loop/backing_file"))


def processes() -> list[str]:
    """Command lines that look like ours; not this one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            words = " ".join(lines_of(f"/proc/{entry}/cmdline")).replace("\0", " ").strip()
            if any(word in words for word in OURS) and "host_state" not in words:
                found.append(words[:200])
    return sorted(found)


def files() -> list[str]:
    """Size, time and mode of each file below FOLDERS."""
    found = []
    for top in FOLDERS:
        for folder, below, names in os.walk(top):
            below[:] = [name for name in below if f"{folder}/{name}" not in IGNORED and name != "__pycache__"]
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
    "users":      lambda: lines_of("/etc/passwd") + lines_of("/etc/group"),
    "packages":   lambda: text_of("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n").splitlines(),
    "mounts":     mounts,
    "links":      lambda: sorted(os.listdir("/sys/class/net")),
    "addresses":  lambda: [line for line in text_of("ip", "-o", "address").splitlines() if "valid_lft" not in line.split()[:1]],
    "routes":     lambda: text_of("ip", "route").splitlines() + text_of("ip", "-6", "route").splitlines(),
    "netns":      lambda: text_of("ip", "netns").splitlines(),
    "namespaces": namespaces,
    "cgroups":    cgroups,
    "loops":      loops,
    "host name":  lambda: [os.uname().nodename],
    "processes":  processes,
    "files":      files,
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
    """`save FILE` or `compare FILE`."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("save", "compare"):
        print("usage: host_state.py save FILE | compare FILE", file=sys.stderr)
        return 2
    file = Path(sys.argv[2])
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
