"""`waagent -collect-logs`: one archive with what explains how the agent did, and no secret.

Taken are logs and records that are named here; keys, settings of extensions and documents of the
platform are never opened. What remains is looked through line by line: queries of URLs (where SAS
signatures are), `protectedSettings` and what is called a password are struck out.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from waagent.distro.files import make_folder, write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError, run

FILE_LIMIT_BYTES = 30 * 1024 * 1024
TOTAL_LIMIT_BYTES = 150 * 1024 * 1024
FOLDER, ARCHIVE, REPORT = "logcollector", "logs.zip", "results.txt"
_TOOL_LIMIT_S = 20.0
_STRUCK = b"***"
_SECRETS = (
    (re.compile(rb"(?i)(https?://[^\s\"'<>?]+)\?[^\s\"'<>]+"), rb"\1?***"),
    (
        re.compile(
            rb"(?i)((?:protectedSettings|password|passwd|secret|access_?key|sig)"
            rb"\"?\s*[:=>]\s*\"?)[^\s\"',<&]+"
        ),
        rb"\1***",
    ),
    (
        re.compile(
            rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S
        ),
        _STRUCK,
    ),
    (re.compile(rb"\$(?:1|2[aby]|5|6|y)\$[./0-9A-Za-z$]{8,}"), _STRUCK),
)

LOGS = (
    # patterns below the root
    "var/log/waagent.log*",
    "var/log/waagent/*",
    "var/log/azure/**/*.log*",
    "var/log/azure/**/*output*",
    "var/log/cloud-init.log",
    "run/waagent/operations",
    "etc/os-release",
    "etc/waagent.conf",
    "etc/waagent/conf.d/*.conf",
    "etc/waagent/sandbox.d/*.conf",
    "proc/mounts",
    "proc/swaps",
    "proc/meminfo",
    "proc/cmdline",
    "proc/net/route",
)
LIBRARY = ("provisioned", "published_hostname", "*/status/*.status", "*/HandlerManifest.json")
NEVER = re.compile(r"(?i)\.(prv|pem|p7m|settings|key|crt|pfx)$|ovf-env|CustomData|/transport/")
COMMANDS = (
    ("waagent-ps.txt", ("waagent-ps", "--wide")),
    ("waagent-ps-extensions.txt", ("waagent-ps", "extensions", "--all")),
    ("configuration.txt", ("waagent", "-show-configuration", "-verbose")),
    ("uname.txt", ("uname", "-a")),
    ("df.txt", ("df", "-h")),
    ("addresses.txt", ("ip", "address")),
    ("routes.txt", ("ip", "route")),
    ("dmesg.txt", ("dmesg",)),
    ("service.txt", ("systemctl", "status", "--no-pager", "waagent")),
    ("journal.txt", ("journalctl", "-u", "waagent", "-n", "2000", "--no-pager")),
)


def without_secrets(data: bytes) -> bytes:
    """The text with what may be a secret struck out."""
    for pattern, instead in _SECRETS:
        data = pattern.sub(instead, data)
    return data


def collect(paths: Paths) -> tuple[Path, list[str]]:
    """Write the archive and its report; where it is, and a line for each thing that is in it or was
    left out. Raises OSError, FileError.
    """
    folder = paths.library / FOLDER
    make_folder(paths.library)
    make_folder(folder)
    report: list[str] = []
    temporary = folder / f".{ARCHIVE}"
    temporary.unlink(missing_ok=True)
    total = 0
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with (
        os.fdopen(descriptor, "w+b") as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in _everything(paths, report):
            if total + len(data) > TOTAL_LIMIT_BYTES:
                report.append(
                    f"{name}: left out, the archive would exceed {TOTAL_LIMIT_BYTES} bytes"
                )
                continue
            total += len(data)
            archive.writestr(name, without_secrets(data))
            report.append(f"{name}: {len(data)} bytes")
        archive.writestr(REPORT, "\n".join(report) + "\n")
    os.replace(temporary, folder / ARCHIVE)
    write_atomic(folder / REPORT, ("\n".join(report) + "\n").encode(), mode=0o600)
    return folder / ARCHIVE, report


def _everything(paths: Paths, report: list[str]) -> Iterator[tuple[str, bytes]]:
    for base, patterns in ((paths.root, LOGS), (paths.library, LIBRARY)):
        seen = {path for pattern in patterns for path in base.glob(pattern)}
        for path in sorted(seen):
            name = str(path.relative_to(paths.root))
            if NEVER.search(f"/{name}"):
                continue
            data = _content(path, name, report)
            if data is not None:
                yield name, data
    if paths.root == Path("/"):
        for name, argv in COMMANDS:
            yield name, _output(argv)


def _content(path: Path, name: str, report: list[str]) -> bytes | None:
    """The end of a regular file, which explains most; None when it is none or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        report.append(f"{name}: left out, {error.strerror}")
        return None
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            return None
        if facts.st_size > FILE_LIMIT_BYTES:
            report.append(f"{name}: only its last {FILE_LIMIT_BYTES} bytes")
            file.seek(facts.st_size - FILE_LIMIT_BYTES)
        return file.read(FILE_LIMIT_BYTES)


def _output(argv: tuple[str, ...]) -> bytes:
    try:
        finished = run(argv, deadline_s=_TOOL_LIMIT_S, check=False, output_limit_bytes=1024 * 1024)
    except ToolError as error:
        return f"{error}\n".encode()
    return finished.stdout + finished.stderr
