"""`waagent-lab`: the demo, the emulated platform and boot DVDs, for people who work on the agent.

Exit status: 0 done; 1 it failed; 2 usage; 3 the box could not be made (the message names what is
missing).
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import waagent
from waagent.lab.fabric.values import PLUGIN_PORT, WIRE_PORT, LabError

NEEDS_ROOT = (
    "waagent-lab: {} needs root (it makes namespaces, mounts and a loop device); try: sudo {}"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    words = [
        f"-{word}" if word in ("-help", "-version") else word
        for word in (sys.argv[1:] if argv is None else argv)
    ]
    if words[:1] == ["extension"]:
        print("waagent-lab: extension run is not in this version", file=sys.stderr)
        return 1
    line = parser().parse_args(words)
    try:
        status: int = line.call(line)
    except LabError as error:
        print(f"waagent-lab: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return status


def parser() -> argparse.ArgumentParser:
    """The words of `waagent-lab`: for the command line, and for its manual."""
    made = argparse.ArgumentParser(
        prog="waagent-lab",
        description="An emulated Azure platform on this machine, for development.",
    )
    made.add_argument("--version", action="version", version=f"waagent-lab {waagent.__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo", help="one VM's life, from boot DVD to killed workers, in two minutes (needs root)"
    )
    demo.set_defaults(call=_demo)
    fabric = commands.add_parser(
        "fabric", help="run WireServer and HostGAPlugin on an address of this machine"
    )
    fabric.add_argument("--address", default="127.0.0.1", metavar="IP")
    fabric.add_argument("--wire-port", type=int, default=WIRE_PORT, metavar="N")
    fabric.add_argument("--plugin-port", type=int, default=PLUGIN_PORT, metavar="N")
    fabric.add_argument(
        "--control", type=Path, metavar="SOCKET", help="take JSON calls on this Unix socket"
    )
    fabric.set_defaults(call=_fabric)
    dvd = commands.add_parser("dvd", help="write a boot DVD with ovf-env.xml")
    dvd.add_argument("file", type=Path, help="the image to write")
    dvd.add_argument("--host-name", default="tern-07", metavar="NAME")
    dvd.add_argument("--user", default="azureuser", metavar="NAME")
    dvd.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE", help="public key (OpenSSH)"
    )
    dvd.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="file with the password in its first line",
    )
    dvd.add_argument("--custom-data", type=Path, metavar="FILE")
    dvd.add_argument(
        "--variant",
        default="good",
        metavar="WORD",
        help="good, without_ovf, udf_only, damaged or empty",
    )
    dvd.set_defaults(call=_dvd)
    extension = commands.add_parser(
        "extension", help="run an extension handler in a box (not in this version)"
    )
    extension.set_defaults(call=_demo)
    return made


def _demo(line: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        print(NEEDS_ROOT.format("demo", "make demo"), file=sys.stderr)
        return 1
    from waagent.lab import demo  # after the question of root: it loads much

    return demo.run()


def _fabric(line: argparse.Namespace) -> int:
    from waagent.lab.fabric import control
    from waagent.lab.fabric.fabric import Fabric

    try:
        fabric = Fabric(line.address, line.wire_port, line.plugin_port)
    except OSError as error:
        raise LabError(
            "the fabric cannot listen",
            f"{line.address} ports {line.wire_port} and {line.plugin_port}",
            str(error),
        ) from error
    with fabric:
        if line.control is not None:
            control.serve(fabric, line.control)
        print(
            f"WireServer {fabric.base}, HostGAPlugin port {fabric.plugin_port}; Ctrl-C ends it",
            flush=True,
        )
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
        print(fabric.summary())
    return 0


def _dvd(line: argparse.Namespace) -> int:
    from waagent.lab.dvd import write_dvd
    from waagent.lab.ovf import Order, ovf_env

    keys = tuple(path.read_text(encoding="utf-8").strip() for path in line.key)
    password = (
        line.password_file.read_text(encoding="utf-8").splitlines()[0] if line.password_file else ""
    )
    custom = line.custom_data.read_bytes() if line.custom_data else b""
    order = Order(
        line.host_name,
        line.user,
        keys,
        password=password,
        disable_password_authentication=not password,
        custom_data=custom,
    )
    write_dvd(line.file, ovf_env(order), line.variant)
    print(f"wrote {line.file}: host {line.host_name}, user {line.user}, {len(keys)} keys")
    return 0


if __name__ == "__main__":
    sys.exit(main())
