"""`waagent-lab extension lint`: what is known to break a handler, found without running it.

A finding is one line, `error` or `warning`, file and line, what, remedy. An error fails on every VM
or on the newest distributions; a warning fails on some.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from waagent.lab.extension import scripts
from waagent.lab.extension.package import package_bytes
from waagent.protocol.handler.manifest import FILE_NAME, OPERATIONS, command_line, parse_manifest
from waagent.workers.extension_runner.sandbox_wishes import WishError, read_wish
from waagent.workers.extension_runner.unpack import PackageRefused, unpack
from waagent.workers.extension_runner.unpack_job import Job

ERROR, WARNING = "error", "warning"
_BOOLEANS = (
    "rebootAfterInstall",
    "reportHeartbeat",
    "continueOnUpdateFailure",
    "supportsMultipleExtensions",
)
_VERSION = re.compile(r"\d+(\.\d+){1,3}")
_GONE_MODULES: Mapping[str, str] = {
    **dict.fromkeys(("imp", "distutils", "asyncore", "asynchat", "smtpd"), "3.12"),
    **dict.fromkeys(
        (
            "crypt", "cgi", "cgitb", "pipes", "telnetlib", "nntplib", "uu", "xdrlib", "imghdr",
            "sndhdr", "spwd", "nis", "audioop", "aifc", "chunk", "msilib", "ossaudiodev", "sunau",
            "mailcap",
        ),
        "3.13",
    ),
    **dict.fromkeys(("urllib2", "ConfigParser", "httplib", "SocketServer"), "3.0"),
}  # fmt: skip
_GONE_NAMES: Mapping[str, str] = {
    "platform.linux_distribution": "3.8",
    "platform.dist": "3.8",
    "inspect.getargspec": "3.11",
    "string.letters": "3.0",
}


def run(line: Namespace) -> int:
    """Print the findings; 0 without an error, 1 with one."""
    found = findings(package_bytes(line.path))
    if line.json:
        print(json.dumps({"schema": 1, "findings": found}, indent=1))
    else:
        print("\n".join(found) or "nothing found")
    return 1 if any(text.startswith(ERROR) for text in found) else 0


def findings(package: bytes) -> list[str]:
    """Everything that is wrong with the zip ``package``, errors first."""
    with tempfile.TemporaryDirectory(prefix="waagent-lint-") as scratch:
        try:
            folder, left_out = _unpacked(Path(scratch), package)
        except PackageRefused as error:
            return [f"{ERROR}: the package is refused: {error}: build it again"]
        found = [f"{WARNING}: package: {text}: take it out of the zip" for text in left_out]
        found += _manifest(folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = str(path.relative_to(folder))
            if not path.is_symlink() and name != FILE_NAME:
                found += _file(path, name)
    return sorted(dict.fromkeys(found), key=lambda text: not text.startswith(ERROR))


def version_of(package: bytes) -> str:
    """The version that the manifest names; 1.0.0 when it names none."""
    with tempfile.TemporaryDirectory(prefix="waagent-lint-") as scratch:
        try:
            folder, _ = _unpacked(Path(scratch), package)
        except PackageRefused:
            return "1.0.0"
        top = _top(folder)
    signing = top.get("signingInfo")
    places = (signing.get("version") if isinstance(signing, dict) else None, top.get("version"))
    named = [word for word in places if isinstance(word, str) and _VERSION.fullmatch(word)]
    return named[0] if named else "1.0.0"


def _unpacked(scratch: Path, package: bytes) -> tuple[Path, list[str]]:
    spool, target = scratch / "spool", scratch / "handler"
    spool.mkdir()
    (spool / "package").write_bytes(package)
    digest = hashlib.sha256(package).hexdigest()
    job = Job(str(spool), "package", len(package), digest, str(scratch / "staging"), str(target))
    return target, unpack(job)[0]


def _top(folder: Path) -> Mapping[str, Any]:
    document = json.loads((folder / FILE_NAME).read_bytes().rstrip(b"\0 \r\n\t"))
    top = document[0] if isinstance(document, list) else document
    return top if isinstance(top, dict) else {}


def _manifest(folder: Path) -> Iterator[str]:
    data = (folder / FILE_NAME).read_bytes()
    manifest, top = parse_manifest(data), _top(folder)
    for key in _doubled(data):
        yield f"{WARNING}: {FILE_NAME}: {key} stands there twice: the last one counts"
    inner = top["handlerManifest"]
    for key in _BOOLEANS:
        if key in inner and not isinstance(inner[key], bool):
            yield f"{WARNING}: {FILE_NAME}: {key} is no boolean: write true or false without quotes"
    mode = inner.get("updateMode")
    if mode is not None and str(mode).lower() not in ("updatewithinstall", "updatewithoutinstall"):
        yield f"{WARNING}: {FILE_NAME}: updateMode {mode!r} skips install at an update"
    if "sandbox" in top:
        try:
            read_wish(top["sandbox"])
        except WishError as error:
            yield f"{ERROR}: {FILE_NAME}: sandbox: {error}: nothing will run: correct it"
    for operation in OPERATIONS:
        command = manifest.command(operation)
        if not command:
            severity = ERROR if operation == "enable" else WARNING
            yield f"{severity}: {FILE_NAME}: {operation}Command is missing or empty: add it"
            continue
        word = command_line("", command).split()[0].lstrip("/").removeprefix("./")
        if not (folder / word).is_file():
            yield (
                f"{ERROR}: {FILE_NAME}: {operation}Command begins with {word!r}, which is not in"
                " the package: the first word is a file below the handler's folder"
            )


def _doubled(data: bytes) -> list[str]:
    doubled: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        doubled.extend(key for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(pairs)

    json.loads(data.rstrip(b"\0 \r\n\t"), object_pairs_hook=look)
    return doubled


def _file(path: Path, name: str) -> Iterator[str]:
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        return
    text = data.decode("utf-8", "replace")
    first = text.removeprefix("\ufeff").split("\n", 1)[0]
    if first.startswith("#!"):
        if data.startswith(b"\xef\xbb\xbf"):
            yield f"{ERROR}: {name}:1: a byte order mark before #!: no kernel runs it: remove it"
        if first.endswith("\r"):
            yield f"{ERROR}: {name}:1: the line ends with CR: the interpreter is not found: use LF"
        if re.fullmatch(r"#!\s*(/usr/bin/env python|/usr/bin/python)\s*", first.rstrip("\r")):
            yield (
                f"{WARNING}: {name}:1: {first.strip()}: many distributions have no python command:"
                " use python3"
            )
    is_python = path.suffix == ".py" or "python" in first
    if is_python:
        yield from _python(data, name)
    if first.startswith("#!") or path.suffix in (".sh", ".py"):
        yield from scripts.findings(text, name, is_python=is_python)


def _python(data: bytes, name: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        yield f"{ERROR}: {name}:{line}: no Python 3 ({getattr(error, 'msg', error)}): port it"
        return
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Try, ast.If))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        for used in _used(node):
            since = _GONE_NAMES.get(used) or _GONE_MODULES.get(used.split(".")[0])
            is_module = isinstance(node, (ast.Import, ast.ImportFrom))
            if since and (is_module or used in _GONE_NAMES):
                severity = WARNING if id(node) in guarded else ERROR
                line = getattr(node, "lineno", 1)
                yield f"{severity}: {name}:{line}: {used} is gone in Python {since}: replace it"


def _used(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module] if node.module and not node.level else []
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return [f"{node.value.id}.{node.attr}"]
    return []
