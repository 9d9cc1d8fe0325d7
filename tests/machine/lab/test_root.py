"""Nothing of this host decides what a machine is made of, and nothing of it is seen in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from waagent.lab.machine import layers
from waagent.lab.machine.machine import Machine
from waagent.lab.root import fetch
from waagent.lab.root.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
SPOIL = """
mount -t tmpfs tmpfs /root && mkdir /root/go && touch /root/go/here
mount -t tmpfs tmpfs /var/lib/dpkg && mkdir /var/lib/dpkg/updates /var/lib/dpkg/info
echo 'Status: half' > /var/lib/dpkg/status
echo 'torn' > /var/lib/dpkg/updates/0001
mount -t tmpfs tmpfs /var/lib/apt
exec "$@"
"""
LOOK = """
import json, sys
from pathlib import Path
from waagent.lab.machine import layers
from waagent.lab.machine.machine import Machine
with Machine(Path(sys.argv[1]), agent=False) as vm:
    seen = {"layers": [path.name for path in layers.ensure(print)]}
    seen["root"] = vm.run(["ls", "-A", "/root"], check=True).stdout.split()
    seen["audit"] = vm.run(["dpkg", "--audit"], check=True).stdout
print(json.dumps(seen))
"""


def test_a_host_with_a_folder_root_go_and_an_interrupted_dpkg_changes_nothing(
    tmp_path: Path,
) -> None:
    known = [path.name for path in layers.ensure(print)]

    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", SPOIL, "sh"),
            *(sys.executable, "-c", LOOK, str(tmp_path)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )

    seen = json.loads(done.stdout)
    assert seen["layers"] == known
    assert "go" not in seen["root"] and seen["audit"] == ""


def test_files_of_the_host_are_not_in_the_machine(tmp_path: Path) -> None:
    (tmp_path / "of-the-host").touch()

    with Machine(tmp_path, agent=False) as vm:
        there = [path for path in (tmp_path, ROOT) if vm.exists(str(path))]
        mapped = vm.run(["cat", "/proc/1/maps"], check=True).stdout
        first = vm.run(["readlink", "/proc/1/exe", "/proc/1/cwd"], check=True).stdout

    assert there == []
    assert first.split() == ["/usr/bin/python3.11", "/"]
    assert str(ROOT) not in mapped


def test_a_root_is_named_by_its_recipe() -> None:
    names = [Recipe(suite, init).name for suite in ("a", "b") for init in ("systemd", "openrc")]

    assert len(set(names)) == 4
    assert Recipe("a").name == names[0]


def test_a_tool_that_the_host_lacks_is_unpacked_beside_the_roots(tmp_path: Path) -> None:
    """With an interrupted dpkg on this host; needs its package mirror."""
    script = (
        "import os, sys; from pathlib import Path; from waagent.lab.root import fetch\n"
        "os.environ['PATH'] = sys.argv[2]\n"
        "print(fetch.tool_path(Path(sys.argv[1]), 'mmdebstrap', 'mmdebstrap', 'bookworm')['PATH'])"
    )
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in Path("/usr/bin").iterdir():
        if tool.name != "mmdebstrap":
            (bare / tool.name).symlink_to(tool)
    argv = [sys.executable, "-c", script, str(tmp_path / "tools"), str(bare)]

    done = subprocess.run(
        [*("unshare", "--mount", "--propagation", "private", "sh", "-ec", SPOIL, "sh"), *argv],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    found = Path(done.stdout.decode().split(":")[0], "mmdebstrap")
    said = subprocess.run([found, "--version"], capture_output=True, check=True, timeout=60)

    assert said.stdout.startswith(b"mmdebstrap ")


def test_a_suites_sources_are_of_this_hosts_mirrors() -> None:
    lines = fetch.sources("trixie").splitlines()

    assert [line.split()[2] for line in lines] == ["trixie", "trixie-updates", "trixie-security"]
    assert all(line.split()[1].startswith(("http", "file", "cdrom")) for line in lines)
