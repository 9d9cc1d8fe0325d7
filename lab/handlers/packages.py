"""Builds handler zips: a manifest and one script for each operation; and zips that no agent may
unpack.
"""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OPERATIONS = ("install", "enable", "update", "disable", "uninstall")
BOMB_BYTES = 10 * 1024 * 1024 * 1024
_CHUNK_BYTES = 16 * 1024 * 1024

STATUS = """
sequence=${ConfigSequenceNumber:-0}
report() {  # report STATUS CODE MESSAGE
    mkdir -p status
    printf '[{"version": 1.0, "timestampUTC": "%s", "status": {"operation": "Enable", "status": "%s", "code": %s,' \\
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$1" "$2" > "status/.$sequence.new"
    printf ' "formattedMessage": {"lang": "en-US", "message": "%s"}}}]' "$3" >> "status/.$sequence.new"
    mv "status/.$sequence.new" "status/$sequence.status"
}
"""
"""Shell: `report STATUS CODE MESSAGE` writes the status file of the current sequence number."""


def handler_zip(
    scripts: Mapping[str, str],
    *,
    manifest: Mapping[str, Any] | None = None,
    top: Mapping[str, Any] | None = None,
) -> bytes:
    """A package whose operations run the given shell texts; an operation that is not named does
    nothing.

    Each script starts in the handler's folder and has `report` (see STATUS). ``manifest`` changes
    keys of `handlerManifest`, ``top`` those of the top level. Real packages carry no execute bits,
    so neither do these.
    """
    described: dict[str, Any] = {
        f"{operation}Command": f"bin/{operation}" for operation in OPERATIONS
    }
    described.update(
        {
            "rebootAfterInstall": False,
            "reportHeartbeat": False,
            "updateMode": "UpdateWithInstall",
            **(manifest or {}),
        }
    )
    files = {
        "HandlerManifest.json": json.dumps(
            [{"name": "Sample", "version": 1.0, "handlerManifest": described, **(top or {})}]
        )
    }
    for operation in OPERATIONS:
        files[f"bin/{operation}"] = f"#!/bin/sh\n{STATUS}\n{scripts.get(operation, 'exit 0')}\n"
    return zipped(files)


def with_filler(package: bytes, name: str, content: bytes) -> bytes:
    """``package`` and one file more, not compressed."""
    stream = io.BytesIO(package)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    """A plain zip of ``files`` (name in the archive -> content), mode 0644."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return stream.getvalue()


def hello() -> bytes:
    """Greets: prints the public greeting and the decrypted protected one, and puts both into its
    status message.

    It decrypts as real handlers do: with openssl, key and certificate taken by thumbprint from the
    folder above its own.
    """
    greet = Path(__file__).with_name("hello.py").read_text(encoding="utf-8")
    described = {f"{operation}Command": f"bin/{operation}" for operation in OPERATIONS}
    manifest = json.dumps([{"name": "Hello", "version": 1.0, "handlerManifest": described}])
    files: dict[str, str | bytes] = {"HandlerManifest.json": manifest, "bin/hello.py": greet}
    for operation in OPERATIONS:
        run = (
            "exec python3 bin/hello.py"
            if operation == "enable"
            else f"echo hello: {operation} done"
        )
        files[f"bin/{operation}"] = f"#!/bin/sh\n{run}\n"
    return zipped(files)


def slow(seconds: float, exit_code: int = 0) -> bytes:
    """`enable` takes its time, notes each run in ../ran-<name> and reports success when it ends
    with 0.
    """
    script = f"""
echo "$$ begin" >> "../$(basename "$PWD").runs"
sleep {seconds}
echo "$$ end" >> "../$(basename "$PWD").runs"
[ {exit_code} -ne 0 ] || report success 0 "slept {seconds} s"
echo "slept {seconds} s"
exit {exit_code}"""
    return handler_zip({"enable": script})


def hangs() -> bytes:
    """`enable` never ends, ignores TERM and has children in sessions of their own."""
    script = """
trap '' TERM HUP INT
echo $$ > hang.pids
for n in 1 2 3; do
    setsid sh -c 'trap "" TERM HUP; echo $$ >> hang.pids; while :; do sleep 1000; done' &
done
while :; do sleep 1000; done"""
    return handler_zip({"enable": script})


BAD_STATUS: dict[str, str] = {
    # name       shell that makes "$file"
    "fifo": 'mkfifo "$file"',
    "link": 'ln -s /etc/shadow "$file"',
    "huge": 'head -c 52428800 /dev/zero | tr "\\0" "x" > "$file"',
    "garbage": 'echo "{not json" > "$file"',
}


def bad_zips() -> dict[str, bytes]:
    """Archives that must be refused whole, by what is wrong with them; nothing of them may appear
    outside their folder.
    """
    good = {
        "HandlerManifest.json": json.dumps([{"handlerManifest": {"enableCommand": "bin/enable"}}]),
        "bin/enable": "#!/bin/sh\nexit 0\n",
    }
    return {
        "parent": zipped({**good, "../escaped": "x"}),
        "absolute": zipped({**good, "/tmp/escaped": "x"}),
        "link": _with_link(good, "bin/out", "/etc"),
        "truncated": zipped({**good, "filler": bytes(range(256)) * 400})[:-300],
        "not_a_zip": b"<html>Sign in</html>",
        "no_manifest": zipped({"bin/enable": "#!/bin/sh\nexit 0\n"}),
        "bomb": _bomb(good),
    }


def _with_link(files: Mapping[str, str], name: str, goal: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
        entry.create_system = 3
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, goal)
    return stream.getvalue()


def _bomb(files: Mapping[str, str]) -> bytes:
    """``files`` and one entry of 10 GB of zeros that takes 10 MB; its header lies about the
    size.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packer.compress(b"")
    piece = packer.compress(bytes(_CHUNK_BYTES)) + packer.flush(zlib.Z_FULL_FLUSH)
    body = piece * (BOMB_BYTES // _CHUNK_BYTES) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()
    name = b"bin/bomb"
    base = zipped(files)
    directory_at = struct.unpack_from("<I", base, base.rindex(b"PK\5\6") + 16)[0]
    end_at = base.rindex(b"PK\5\6")
    described = (20, 0, 8, 0, 0x5C21, 0, len(body), 4096, len(name))
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *described, 0) + name + body
    central = (
        struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\1\2",
            0x031E,
            *described,
            0,
            0,
            0,
            0,
            0o100644 << 16,
            directory_at,
        )
        + name
    )
    directory = base[directory_at:end_at] + central
    count = len(files) + 1
    end = struct.pack(
        "<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), directory_at + len(local), 0
    )
    return base[:directory_at] + local + directory + end
