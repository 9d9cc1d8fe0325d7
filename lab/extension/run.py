"""`waagent-lab extension run`: make the box, tell what happens in it, say how it ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.lab.extension import lint
from waagent.lab.extension.orders import ENABLE, INSTALL, OPERATIONS, Order, result_folder
from waagent.lab.extension.package import package_bytes
from waagent.lab.extension.telling import Telling
from waagent.lab.fabric.values import LabError
from waagent.protocol.base.records import to_map
from waagent.protocol.handler import handler_names
from waagent.protocol.handler.handler_errors import NameRefused

PASSED, FAILED, USAGE, NO_BOX, TIME_LIMIT = 0, 1, 2, 3, 4
_NAMED = re.compile(r"(?P<name>.+?)(?:__|-)(?P<version>\d+(?:\.\d+){0,3})")
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts")


def run(line: Namespace) -> int:
    """Run what the command line asks for; its exit status."""
    if os.geteuid() != 0:
        print(
            "waagent-lab: extension run needs root (it makes namespaces and mounts);"
            f" try: sudo waagent-lab extension run {line.path}",
            file=sys.stderr,
        )
        return NO_BOX
    settings = _settings(line.settings)
    results = result_folder(line.path)
    package = package_bytes(line.path)
    old = package_bytes(line.update_from) if line.update_from else b""
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="waagent-box-") as root:
        name, version = _identity(line.path, package)
        order = Order(
            name,
            version,
            str(_kept(results / "package.zip", package)),
            str(_kept(results / "old-package.zip", old)) if old else "",
            _identity(line.update_from, old)[1] if old else "",
            settings,
            _operations(line.operation),
            line.again,
            line.timeout,
            line.internet,
            line.shell,
            line.profile or "",
            root,
            str(results.resolve()),
        )
        if order.old_version == order.version:
            raise LabError(
                "both packages have one version",
                version,
                "name the folders or zips NAME-VERSION, or give the manifests versions",
            )
        findings = lint.findings(package)
        telling = Telling(order, findings, is_json=line.json)
        status = _in_box(order, telling)
    return telling.end(status)


def _in_box(order: Order, telling: Telling) -> int:
    """Start the box and pass on what it says; its exit status."""
    wanted = [*_NAMESPACES, *(() if order.internet else ("--net",))]
    argv = ["unshare", *wanted, "--fork", "--kill-child", "--propagation", "private"]
    argv += [sys.executable, "-m", "waagent.lab.extension.box", json.dumps(to_map(order))]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = Path(order.results) / "box.log"
    with open(log, "wb") as errors:
        try:
            box = subprocess.Popen(
                argv,
                stdin=None if order.shell else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if order.shell else errors,
                env=environment,
                cwd="/",
            )
        except FileNotFoundError as error:
            raise LabError("unshare is missing", "this machine", "install util-linux") from error
        assert box.stdout is not None
        for said in box.stdout:
            telling.take(json.loads(said))
        status = box.wait()
    if not telling.has_verdict and status != NO_BOX:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        raise LabError("the box broke", str(log), text[-600:] or "it said nothing")
    return status


def _settings(path: Path | None) -> Mapping[str, Any]:
    """`{"publicSettings": …, "protectedSettings": …}`; without a file empty public ones."""
    if path is None:
        return {"publicSettings": {}}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError("settings cannot be read", str(path), str(error)) from error
    known = {"publicSettings", "protectedSettings"}
    if not isinstance(said, dict) or not set(said) <= known:
        raise LabError(
            "settings are not understood",
            str(path),
            'write {"publicSettings": {...}, "protectedSettings": {...}}',
        )
    return said


def _operations(words: list[str] | None) -> tuple[str, ...]:
    if not words:
        return (INSTALL, ENABLE)
    return OPERATIONS if "all" in words else tuple(words)


def _identity(path: Path, package: bytes) -> tuple[str, str]:
    """Name and version: of the folder's or file's name, else of the manifest."""
    plain = path.resolve().name.removesuffix(".zip")
    match = _NAMED.fullmatch(plain)
    name, version = (match["name"], match["version"]) if match else (plain, "")
    version = version or lint.version_of(package)
    try:
        handler_names.refuse_bad_name(name)
        handler_names.refuse_bad_version(version)
    except NameRefused as error:
        raise LabError(
            "the handler's name cannot be one", plain, f"rename the folder or zip: {error}"
        ) from error
    return name, version


def _kept(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path.resolve()
