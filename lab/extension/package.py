"""What an author has, a folder or a zip, becomes the zip that the platform would deliver."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

from waagent.lab.fabric.values import LabError

_EPOCH = (2026, 1, 1, 0, 0, 0)


def package_bytes(path: Path) -> bytes:
    """The package at ``path``. Raises LabError."""
    try:
        if path.is_dir():
            return _zipped(path)
        return path.read_bytes()
    except OSError as error:
        raise LabError(
            "there is no handler", str(path), f"name a folder or a zip ({error.strerror})"
        ) from error


def _zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_symlink():
                _add(archive, name, stat.S_IFLNK | 0o777, os.readlink(path).encode())
            elif path.is_file():
                _add(archive, name, path.stat().st_mode, path.read_bytes())
    return stream.getvalue()


def _add(archive: zipfile.ZipFile, name: str, mode: int, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3
    entry.external_attr = mode << 16
    archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
