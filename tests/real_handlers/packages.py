"""From checkouts of public repositories to the packages that their publishers would ship.

Go handlers are built with the vendored sources of the tag named, without a network; what a checkout
or a Go lacks leaves a handler out, with the reason.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_BUILD_LIMIT_S = 600.0


class LeftOut(Exception):
    """This handler cannot be made here; the text says what is missing."""


class Handler(NamedTuple):
    """One real handler and what it is given."""

    name: str
    version: str
    make: Callable[[Path, Sequence[str], Path], None]
    """(folder with the checkouts, command lines of Go, package to write)"""
    settings: tuple[Mapping[str, Any], Mapping[str, Any]]
    """`public` and `protected` of two goal states."""
    success: str = "success"
    extensions: tuple[str, ...] = ()
    """Names of its extensions when it is a multi-config handler."""
    has_status: bool = True
    python_command: bool = False
    """It begins with `#!/usr/bin/env python`."""


def _zip(target: Path, files: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def _files(folder: Path, left_out: Iterable[str] = ("test", "references")) -> dict[str, Path]:
    if not folder.is_dir():
        raise LeftOut(f"{folder} is missing")
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path for name, path in found.items() if not set(name.split("/")) & set(left_out)}


def _python_handler(room: str, *extra: str) -> Callable[[Path, Sequence[str], Path], None]:
    def make(sources: Path, compilers: Sequence[str], target: Path) -> None:
        top = sources / "azure-linux-extensions"
        files = _files(top / room)
        if room != "VMBackup":
            files.update({f"Utils/{name}": path for name, path in _files(top / "Utils").items()})
        files.update({Path(name).name: top / name for name in extra})
        _zip(target, files)

    return make


def _go_handler(
    repository: str, binary: str, shim: str, version: str, *, modules: bool = False
) -> Callable[[Path, Sequence[str], Path], None]:
    def make(sources: Path, compilers: Sequence[str], target: Path) -> None:
        top = sources / repository
        if not (top / "main").is_dir():
            raise LeftOut(f"{top} is missing")
        with tempfile.TemporaryDirectory() as scratch:
            built = Path(scratch) / "binary"
            _build(
                top, f"github.com/Azure/{repository}", "./main", built, version, compilers, modules
            )
            files = {
                f"bin/{binary}": built,
                f"bin/{shim}": top / "misc" / shim,
                "HandlerManifest.json": top / "misc/HandlerManifest.json",
                "manifest.xml": top / "misc/manifest.xml",
            }
            _zip(target, {name: path for name, path in files.items() if path.exists()})

    return make


def _build(
    top: Path,
    package: str,
    part: str,
    built: Path,
    version: str,
    compilers: Sequence[str],
    modules: bool,
) -> None:
    """`go build` with the first compiler that can."""
    said = "no Go compiler was named (GO=…)"
    for compiler in compilers:
        with tempfile.TemporaryDirectory() as gopath:
            place = Path(gopath) / "src" / package
            shutil.copytree(top, place, symlinks=True)
            environment = {
                **os.environ,
                "GOPATH": gopath,
                "CGO_ENABLED": "0",
                "GO111MODULE": "on" if modules else "off",
                "GOFLAGS": "-mod=vendor" if modules else "",
                "GOTOOLCHAIN": "local",
            }
            argv = [compiler, "build", "-tags", "netgo osusergo"]
            argv += ["-ldflags", f"-X main.Version={version}", "-o", str(built), part]
            done = subprocess.run(
                argv,
                cwd=place,
                env=environment,
                capture_output=True,
                timeout=_BUILD_LIMIT_S,
                check=False,
            )
        if done.returncode == 0:
            return
        said = done.stderr.decode("utf-8", "replace").strip()[-300:]
    raise LeftOut(f"it cannot be built: {said}")


def _guest_agent_test(sources: Path, compilers: Sequence[str], target: Path) -> None:
    top = sources / "guest-agent-test-extension"
    foundation, errors = sources / "azure-extension-foundation", sources / "errors"
    for needed in (top, foundation, errors):
        if not needed.is_dir():
            raise LeftOut(f"{needed} is missing")
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "tree"
        shutil.copytree(top, whole)
        for source, package in (
            (foundation, "github.com/Azure/azure-extension-foundation"),
            (errors, "github.com/pkg/errors"),
        ):
            shutil.copytree(source, whole / "vendor" / package)
        main, service = Path(scratch) / "main", Path(scratch) / "service"
        name = "github.com/Azure/guest-agent-test-extension"
        _build(whole, name, "./main", main, "1.2.0", compilers, False)
        _build(whole, name, "./services", service, "1.2.0", compilers, False)
        files = {
            "bin/GuestAgentTestExtension_linux": main,
            "bin/gatestext_script_linux": service,
            "HandlerManifest.json": top / "HandlerManifest.json",
        }
        files.update({f"scripts/{n}": p for n, p in _files(top / "scripts").items()})
        unit = top / "services/gatestext.service"
        files.update({"services/gatestext.service": unit} if unit.exists() else {})
        _zip(target, files)


def _counted(script: str) -> dict[str, Any]:
    """Settings of a script handler: the script and a note of each run."""
    # the Python one splits its command itself and gives it to no shell
    return {"commandToExecute": f"sh -c 'echo run >> /root/runs; {script}'"}


def _two(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Any, Any]:
    return {"public": first}, {"public": second}


_BUNDLED = ("Common/waagentloader.py", "Common/WALinuxAgent-2.0.16/waagent")
_NO_DNS = {"enableInternalDNSCheck": "no"}
_SCRIPT = {"asyncExecution": False, "timeoutInSeconds": 60}
_PROBE = {"protocol": "tcp", "intervalInSeconds": 5, "numberOfProbes": 1}

HANDLERS: tuple[Handler, ...] = (
    Handler(
        "Microsoft.Azure.Extensions.CustomScript",
        "2.1.7",
        _go_handler(
            "custom-script-extension-linux",
            "custom-script-extension",
            "custom-script-shim",
            "2.1.7",
        ),
        _two(_counted("echo hello"), _counted("echo again")),
    ),
    Handler(
        "Microsoft.OSTCExtensions.CustomScriptForLinux",
        "1.5.5",
        _python_handler("CustomScript", *_BUNDLED),
        _two({**_counted("echo hello"), **_NO_DNS}, {**_counted("echo again"), **_NO_DNS}),
    ),
    Handler(
        "Microsoft.CPlat.Core.RunCommandHandlerLinux",
        "1.3.2",
        _go_handler(
            "run-command-handler-linux", "run-command-handler", "run-command-shim", "1.3.2"
        ),
        _two(
            {**_SCRIPT, "source": {"script": "echo run >> /root/runs; echo hello"}},
            {**_SCRIPT, "source": {"script": "echo run >> /root/runs; echo again"}},
        ),
        extensions=("one",),
    ),
    Handler(
        "Microsoft.ManagedServices.ApplicationHealthLinux",
        "2.0.29",
        _go_handler(
            "applicationhealth-extension-linux",
            "applicationhealth-extension",
            "applicationhealth-shim",
            "2.0.29",
            modules=True,
        ),
        _two({**_PROBE, "port": 22}, {**_PROBE, "port": 22, "intervalInSeconds": 6}),
    ),
    Handler(
        "Microsoft.Azure.Extensions.Edp.GATestExtGo",
        "1.2.0.0",
        _guest_agent_test,
        _two({"name": "bob"}, {"name": "ada"}),
    ),
    Handler(
        "Microsoft.OSTCExtensions.VMAccessForLinux",
        "1.5.25",
        _python_handler("VMAccess"),
        (
            {"protected": {"username": "bob", "password": "Real-Handler-1"}},
            {"protected": {"username": "bob", "password": "Real-Handler-2"}},
        ),
    ),
    Handler(
        "Microsoft.Azure.RecoveryServices.VMSnapshotLinux",
        "1.0.9184.0",
        _python_handler("VMBackup"),
        _two({"a": "b"}, {"a": "c"}),
        has_status=False,
    ),
    Handler(
        "Contoso.SampleExtension",
        "1.0",
        _python_handler("SampleExtension", *_BUNDLED),
        _two({"name": "bob"}, {"name": "ada"}),
        python_command=True,
    ),
)
