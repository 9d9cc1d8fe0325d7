"""A package becomes a handler's folder. A process of its own, exec'd per package, that ends before
anything of the handler runs.

One JSON job on stdin, one JSON answer on stdout. The package is copied out of the spool *while it
is hashed*, into a staging folder that only root may enter, and only this copy is read: whoever owns
the spool cannot swap it afterwards. Everything is checked before it is written and counted while it
is written; the handler's folder appears whole, by a rename, or not at all (spec: extensions §1.2).
Standard library only.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler import manifest as manifests
from waagent.workers.extension_runner.unpack_job import MIB, Bounds, Job

CHUNK_BYTES = 256 * 1024
RATIO_FLOOR_BYTES = 16 * MIB
RESERVE_BYTES = 16 * MIB  # of the file system, never filled by a package
OWN_FOLDERS = ("config", "status")
OWN_FILES = ("HandlerEnvironment.json", "HandlerState", "mrseq", "heartbeat.log")
LINK_BYTES, FOLLOWED_LINKS = 1024, 40
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class PackageRefused(Exception):
    """The package is not unpacked; the text says why, ``code`` is what to report."""

    def __init__(self, reason: str, code: int = handler_errors.PACKAGE_INVALID) -> None:
        super().__init__(reason)
        self.code = code


def unpack(job: Job) -> tuple[list[str], manifests.Manifest]:
    """Make ``job.target`` from the package; warnings, and its manifest. Raises PackageRefused or
    OSError with nothing left behind.
    """
    staging = Path(job.staging)
    lock = os.open(
        staging.with_name(staging.name + ".lock"),
        os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
        0o600,
    )
    # an unpacker whose runner was killed may still write there
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    shutil.rmtree(staging, ignore_errors=True)
    files.make_folder(staging, 0o700)
    try:
        package, tree = staging / "package.zip", staging / "tree"
        refuse_without_room(job, staging)
        copy_hashed(job, package)
        tree.mkdir(mode=0o700)
        warnings = extract(package, tree, _room(job, tree))
        manifest = adopt_manifest(tree)
        sync_file_system(tree)
        exchange(tree, Path(job.target), staging / "replaced")
        drop_archive(job)
        return warnings, manifest
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def refuse_without_room(job: Job, staging: Path) -> None:
    """Before anything is written: the archive at least must fit, and RESERVE_BYTES beside it, of
    which the agent's own records live. Raises PackageRefused.
    """
    free_bytes = _free_bytes(staging)
    if job.size_bytes > free_bytes - RESERVE_BYTES:
        raise PackageRefused(
            f"the package of {_mib(job.size_bytes)} MiB does not fit: {staging.parent.parent} has"
            f" {_mib(free_bytes)} MiB free, {_mib(RESERVE_BYTES)} of them reserved: make room there"
        )


def drop_archive(job: Job) -> None:
    """The archive in the spool is not needed any more: its content stands in the folder."""
    try:
        os.unlink(os.path.join(job.spool, job.file))
    except OSError:
        pass  # its owner removed it, or will: it keeps nothing for long


def copy_hashed(job: Job, copy: Path) -> None:
    """Copy the spooled file while hashing; only what was hashed is in the copy. Raises
    PackageRefused.
    """
    folder = os.open(job.spool, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        source = files.open_foreign(folder, job.file, limit_bytes=job.bounds.archive_bytes)
        owners = (0, os.fstat(folder).st_uid)
    except files.ForeignFileError as error:
        raise PackageRefused(
            f"the spooled package was not taken: {error}", handler_errors.PACKAGE_DOWNLOAD
        ) from error
    finally:
        os.close(folder)
    digest, size = hashlib.sha256(), 0
    with open(source, "rb", buffering=0) as spooled, open(copy, "xb", opener=_private) as written:
        if os.fstat(source).st_uid not in owners:
            raise PackageRefused(
                "the spooled package belongs to a stranger", handler_errors.PACKAGE_DOWNLOAD
            )
        while chunk := spooled.read(CHUNK_BYTES):
            size += len(chunk)
            if size > job.size_bytes:
                raise PackageRefused(
                    f"the spooled package is longer than {job.size_bytes} bytes",
                    handler_errors.PACKAGE_DOWNLOAD,
                )
            digest.update(chunk)
            written.write(chunk)
    if size != job.size_bytes or digest.hexdigest() != job.sha256.lower():
        raise PackageRefused(
            f"the spooled package is not what was downloaded ({size} of {job.size_bytes} bytes)",
            handler_errors.PACKAGE_DOWNLOAD,
        )


def extract(package: Path, tree: Path, bounds: Bounds) -> list[str]:
    """Write every entry below ``tree``; warnings about entries that were left out. Raises
    PackageRefused.
    """
    try:
        _refuse_many_entries(package, bounds)
        with zipfile.ZipFile(package) as archive:
            chosen, warnings = choose_entries(archive.infolist(), bounds)
            left_bytes = bounds.unpacked_bytes
            for path, entry in chosen.items():
                if not _is_link(entry):
                    left_bytes -= _write_entry(
                        archive, entry, tree.joinpath(*path), left_bytes, bounds
                    )
            links = {
                tree.joinpath(*path): entry for path, entry in chosen.items() if _is_link(entry)
            }
            for place, entry in links.items():
                _write_link(archive, entry, place)
            for place, entry in links.items():
                _refuse_escape(place, entry, tree)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        UnicodeDecodeError,
        ValueError,
        MemoryError,
    ) as error:
        raise PackageRefused(
            f"the package is not a whole zip archive: {type(error).__name__}: {str(error)[:200]}"
        ) from error
    return warnings


def choose_entries(
    entries: list[zipfile.ZipInfo], bounds: Bounds
) -> tuple[dict[tuple[str, ...], zipfile.ZipInfo], list[str]]:
    """Path -> entry, the last one of a name winning, without what belongs to the agent; warnings.
    Raises PackageRefused.
    """
    if len(entries) > bounds.entries:
        raise PackageRefused(f"the package has {len(entries)} entries, limit {bounds.entries}")
    chosen: dict[tuple[str, ...], zipfile.ZipInfo] = {}
    warnings = []
    for entry in entries:
        path = entry_path(entry)
        if not path:
            continue
        if path[0] in OWN_FOLDERS or (
            len(path) == 1 and (path[0] in OWN_FILES or path[0].endswith(".mrseq"))
        ):
            warnings.append(f"entry {'/'.join(path)!r} is the agent's own, left out")
            continue
        chosen[path] = entry
    for path, entry in chosen.items():
        for depth in range(1, len(path)):
            parent = chosen.get(path[:depth])
            if parent is not None and not parent.is_dir():
                raise PackageRefused(f"entry {_shown(entry)} lies below a file")
    return chosen, warnings[:20]


def entry_path(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The entry's path below the handler's folder. Raises PackageRefused for all that could lead
    out of it or is no file.
    """
    name = entry.orig_filename
    if entry.flag_bits & 0x1:
        raise PackageRefused(f"entry {_shown(entry)} is encrypted")
    if entry.compress_type not in METHODS:
        raise PackageRefused(f"entry {_shown(entry)} is compressed by method {entry.compress_type}")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise PackageRefused(
            f"entry {_shown(entry)} is neither file, folder nor link"
            f" (mode {entry.external_attr >> 16:o})"
        )
    if name.startswith("/") or _DRIVE.match(name):
        raise PackageRefused(f"entry {_shown(entry)} has an absolute path")
    if "\\" in name or _CONTROL.search(name):
        raise PackageRefused(f"entry {_shown(entry)} has a backslash or a control character")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise PackageRefused(f"entry {_shown(entry)} leaves the folder")
    if any(len(os.fsencode(part)) > 255 for part in parts) or len(parts) > 64:
        raise PackageRefused(f"entry {_shown(entry)} is too long or too deep")
    return parts


def file_mode(entry: zipfile.ZipInfo) -> int:
    """Executable for its owner, readable as the package says, never set-id or sticky."""
    return ((entry.external_attr >> 16) & 0o755) | 0o700


def adopt_manifest(tree: Path) -> manifests.Manifest:
    """HandlerManifest.json lies in the root without a BOM and can be used. Raises PackageRefused
    with 1002 or 1003.
    """
    found = tree / manifests.FILE_NAME
    if not found.is_file():
        below = sorted(
            Path(folder) / manifests.FILE_NAME
            for folder, _, present in os.walk(tree)
            if manifests.FILE_NAME in present
        )
        if not below:
            raise PackageRefused(
                f"{manifests.FILE_NAME} is not in the package", handler_errors.MANIFEST_MISSING
            )
        found = below[0]
    data = found.read_bytes() if found.stat().st_size <= manifests.LIMIT_BYTES else b""
    try:
        manifest = manifests.parse_manifest(data, str(found.relative_to(tree)))
    except handler_errors.ManifestError as error:
        raise PackageRefused(str(error), handler_errors.MANIFEST_INVALID) from error
    files.write_atomic(
        tree / manifests.FILE_NAME,
        data[3:] if data.startswith(b"\xef\xbb\xbf") else data,
        mode=0o600,
    )
    return manifest


def exchange(tree: Path, target: Path, replaced: Path) -> None:
    """Rename ``tree`` to ``target``; what stood there goes to ``replaced``. Both folders' parents
    are synced.
    """
    if target.is_symlink() or target.exists():
        os.rename(target, replaced)
    os.rename(tree, target)
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def sync_file_system(tree: Path) -> None:
    """One syncfs for the whole tree: 20,000 fsyncs would take minutes."""
    folder = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs: Callable[[int], int] | None = getattr(
            ctypes.CDLL(None, use_errno=True), "syncfs", None
        )
        if syncfs is None or syncfs(folder) != 0:
            os.sync()
    finally:
        os.close(folder)


def _room(job: Job, folder: Path) -> Bounds:
    free_bytes = _free_bytes(folder) - RESERVE_BYTES
    return job.bounds._replace(unpacked_bytes=max(0, min(job.bounds.unpacked_bytes, free_bytes)))


def _free_bytes(folder: Path) -> int:
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


def _mib(count_bytes: int) -> int:
    """Whole MiB, rounded up."""
    return -(-count_bytes // MIB)


def _refuse_many_entries(package: Path, bounds: Bounds) -> None:
    """Before the central directory is read into memory: what its end record says. What it hides,
    the memory limit of file_jobs ends.
    """
    with open(package, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_557))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise PackageRefused("the package is not a zip archive, or its end is missing")
    entries = struct.unpack_from("<H", tail, at + 10)[0]
    wide = tail.rfind(b"PK\x06\x06")
    if entries == 0xFFFF and 0 <= wide and len(tail) - wide >= 40:
        entries = struct.unpack_from("<Q", tail, wide + 32)[0]
    if entries > bounds.entries:
        raise PackageRefused(f"the package has {entries} entries, limit {bounds.entries}")


def _write_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left_bytes: int, bounds: Bounds
) -> int:
    """Write one entry; its bytes, counted here because the header is not believed."""
    if entry.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return 0
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as packed, open(path, "xb", opener=_private) as file:
        while chunk := packed.read(CHUNK_BYTES):
            written += len(chunk)
            if written > left_bytes:
                raise PackageRefused(
                    f"the package does not fit: entry {_shown(entry)} goes beyond"
                    f" {bounds.unpacked_bytes} bytes"
                )
            if written > RATIO_FLOOR_BYTES and written > bounds.ratio * max(1, entry.compress_size):
                raise PackageRefused(f"entry {_shown(entry)} grows more than {bounds.ratio} times")
            file.write(chunk)
        os.fchmod(file.fileno(), file_mode(entry))
    return written


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _write_link(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: Path) -> None:
    """Make the link that the entry's content names. Nothing is ever written through it: entries
    below a link were refused.
    """
    with archive.open(entry) as packed:
        goal = packed.read(LINK_BYTES + 1).decode("utf-8")
    if not goal or len(goal) > LINK_BYTES or "\\" in goal or _CONTROL.search(goal):
        raise PackageRefused(f"entry {_shown(entry)} is a link to nothing that can be")
    if goal.startswith("/"):
        raise PackageRefused(f"entry {_shown(entry)} is a link to the absolute path {goal[:120]!r}")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.symlink(goal, place)


def _refuse_escape(place: Path, entry: zipfile.ZipInfo, tree: Path) -> None:
    """When all links stand: followed over all others to its end, it never leaves the folder, whose
    name will be another one.
    """
    ahead, below, left = list(place.relative_to(tree).parts), Path(), FOLLOWED_LINKS
    while ahead:
        part = ahead.pop(0)
        step = tree / below / part
        if part == ".." and below == Path():
            raise PackageRefused(
                f"entry {_shown(entry)} is a link that leads out of the folder, to"
                f" {os.readlink(place)[:120]!r}"
            )
        if part == "..":
            below = below.parent
        elif step.is_symlink():
            left -= 1
            if left < 0:
                raise PackageRefused(f"entry {_shown(entry)} is a link that leads to itself")
            ahead = [one for one in os.readlink(step).split("/") if one not in ("", ".")] + ahead
        else:
            below = below / part


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _shown(entry: zipfile.ZipInfo) -> str:
    return repr(entry.orig_filename[:120])


def answer(job: Mapping[str, Any]) -> dict[str, object]:
    """One job's answer: `{"warnings": […]}` with what the manifest says of updates, or
    `{"error": text, "code": number}`, with `again` when it may go better later.
    """
    fields = {name: value for name, value in job.items() if name in Job._fields}
    wanted = Job(**{**fields, "bounds": Bounds(**fields["bounds"])})
    try:
        warnings, manifest = unpack(wanted)
        return {
            "warnings": warnings,
            "installs_on_update": manifest.install_on_update,
            "continues_on_failure": manifest.continue_on_update_failure,
        }
    except PackageRefused as error:
        return {"error": str(error), "code": error.code}
    except OSError as error:
        where = error.filename or wanted.target
        text = f"the package cannot be unpacked: {error.strerror}: {where}"
        # a full disk is not the package's fault
        return {"error": text, "code": handler_errors.PACKAGE_INVALID, "again": True}
