"""`waagent-lab`: the demo, the emulated platform, boot DVDs and a box for handlers, for people who
work on the agent or on an extension.

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
from waagent.lab.extension.orders import OPERATIONS
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
    _add_extension(commands.add_parser("extension", help="run or lint an extension handler"))
    return made


def _add_extension(extension: argparse.ArgumentParser) -> None:
    commands = extension.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run", help="run a handler in a box on this machine, of which nothing stays (needs root)"
    )
    run.add_argument("path", type=Path, metavar="PATH", help="folder or zip of the handler")
    run.add_argument(
        "--settings", type=Path, metavar="FILE", help="publicSettings and protectedSettings in JSON"
    )
    run.add_argument(
        "--operation",
        action="append",
        choices=(*OPERATIONS, "all"),
        help="run this one; several times for several; default install and enable",
    )
    run.add_argument("--again", action="store_true", help="enable a second time, as after a boot")
    run.add_argument(
        "--update-from", type=Path, metavar="PATH", help="install this one, then update to PATH"
    )
    run.add_argument("--timeout", type=float, metavar="S", help="limit of each command")
    run.add_argument("--internet", action="store_true", help="with this machine's network")
    run.add_argument("--shell", action="store_true", help="a shell in the box at the end")
    run.add_argument("--profile", choices=("default", "strict"), help="other than it asks for")
    run.add_argument("--json", action="store_true", help="one JSON document")
    run.set_defaults(call=_extension_run)
    lint = commands.add_parser("lint", help="look for what is known to break")
    lint.add_argument("path", type=Path, metavar="PATH", help="folder or zip of the handler")
    lint.add_argument("--json", action="store_true", help="one JSON document")
    lint.set_defaults(call=_extension_lint)


def _extension_run(line: argparse.Namespace) -> int:
    from waagent.lab.extension import run

    return run.run(line)


def _extension_lint(line: argparse.Namespace) -> int:
    from waagent.lab.extension import lint

    return lint.run(line)


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
