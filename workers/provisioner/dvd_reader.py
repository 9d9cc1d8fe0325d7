"""A program of its own, DEVICE MOUNT_POINT: prints the ovf-env.xml of a disc.

A child, because a drive may hang, an image may be hostile to its parser, and the document holds a
password that is then gone with this process. First the image is read in user space (hardened
kernels have no udf), by pycdlib and, where UDF stands alone, by a reader of our own; what both
refuse is mounted in a mount namespace of our own, so that nobody else sees it and nothing stays
mounted. Exit status: 0 printed; 3 no such file on the disc; 4
no disc; 5 unreadable (why: standard error).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import time
from typing import Any

NAME = "ovf-env.xml"
LIMIT_BYTES = 1024 * 1024
EXIT_PRINTED, EXIT_NO_FILE, EXIT_NO_DISC, EXIT_UNREADABLE = 0, 3, 4, 5
KERNEL_TYPES = ("udf", "iso9660", "vfat")
_ATTEMPTS, _PAUSE_S = 5, 5.0  # a drive that has just appeared answers EIO for a while
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 1, 2, 4, 8, 0x4000, 1 << 18
_CLONE_NEWNS = 0x20000
_NO_DISC = (errno.ENOENT, errno.ENOMEDIUM, errno.ENXIO, errno.ENODEV)


class NoFile(Exception):
    """A readable disc without the document."""


class Unreadable(Exception):
    """The disc could not be read this way; the text says why."""


def main() -> int:
    """Print the document; the exit status."""
    device, mount_point = sys.argv[1:]
    try:
        with open(device, "rb", buffering=0) as disc:
            if not disc.read(1):
                return EXIT_NO_DISC
    except OSError as error:
        print(f"{device}: {error.strerror}", file=sys.stderr)
        return EXIT_NO_DISC if error.errno in _NO_DISC else EXIT_UNREADABLE
    reasons = []
    for read in (read_in_user_space, read_udf, read_by_mounting):
        try:
            document = read(device, mount_point)
        except NoFile:
            return EXIT_NO_FILE
        except Unreadable as error:
            reasons.append(str(error))
            continue
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()
        return EXIT_PRINTED
    print("; ".join(reasons), file=sys.stderr)
    return EXIT_UNREADABLE


def read_in_user_space(device: str, _: str) -> bytes:
    """By pycdlib: ISO9660 with its extensions, and UDF beside it."""
    try:
        import pycdlib
        from pycdlib.pycdlibexception import PyCdlibException
    except ImportError as error:
        raise Unreadable(f"pycdlib is missing ({error.name})") from error
    image = pycdlib.PyCdlib()
    try:
        image.open(device)
        return _document_in(image)
    except NoFile:
        raise
    except PyCdlibException as error:
        raise Unreadable(f"pycdlib: {error}") from error
    # this is the outermost guard of a parser of foreign bytes in a process made for it
    except Exception as error:
        raise Unreadable(f"pycdlib: {type(error).__name__}") from error


def _document_in(image: Any) -> bytes:
    """From whichever directory tree of the disc has it; their names differ in case and form."""
    views: list[tuple[str, Any]] = [("iso_path", None)]
    for keyword, has in (
        ("rr_path", image.has_rock_ridge),
        ("joliet_path", image.has_joliet),
        ("udf_path", image.has_udf),
    ):
        if has():
            views.append((keyword, None))
    for keyword, _ in reversed(views):
        for child in image.list_children(**{keyword: "/"}):
            if child is None or child.is_dot() or child.is_dotdot() or child.is_dir():
                continue
            name = _name_of(child, keyword)
            if name.partition(";")[0].lower().replace("_", "-") == NAME:
                if child.get_data_length() > LIMIT_BYTES:
                    raise Unreadable(
                        f"{NAME} has {child.get_data_length()} bytes, the limit is {LIMIT_BYTES}"
                    )
                return _content(image, keyword, name)
    raise NoFile


def _name_of(child: Any, keyword: str) -> str:
    if keyword == "rr_path":
        return str(child.rock_ridge.name().decode("utf-8", "replace"))
    raw: bytes = child.file_identifier()
    return raw.decode("utf-16-be" if keyword == "joliet_path" else "utf-8", "replace")


def _content(image: Any, keyword: str, name: str) -> bytes:
    import io

    into = io.BytesIO()
    image.get_file_from_iso_fp(into, **{keyword: f"/{name}"})
    return into.getvalue()


def read_udf(device: str, _: str) -> bytes:
    """A disc that has UDF alone."""
    from waagent.workers.provisioner import udf

    try:
        with open(device, "rb") as disc:
            document = udf.Volume(disc).read_file(NAME, LIMIT_BYTES)
    except (udf.UdfError, OSError) as error:
        raise Unreadable(f"udf: {error}") from error
    # as above: foreign bytes, in a process made for them
    except Exception as error:
        raise Unreadable(f"udf: {type(error).__name__}") from error
    if document is None:
        raise NoFile
    return document


def read_by_mounting(device: str, mount_point: str) -> bytes:
    """By the kernel, read-only and harmless, seen by nobody but this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise Unreadable(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    if not stat.S_ISBLK(os.stat(device).st_mode):
        raise Unreadable("not a block device, cannot be mounted")
    try:
        os.makedirs(mount_point, 0o700, exist_ok=True)
    except OSError as error:
        raise Unreadable(f"{mount_point}: {error.strerror}") from error
    _mount(libc, device, mount_point)
    try:
        names = [name for name in os.listdir(mount_point) if name.lower() == NAME]
        if not names:
            raise NoFile
        path = os.path.join(mount_point, names[0])
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"{device}: {error.strerror}") from error
    if len(data) > LIMIT_BYTES:
        raise Unreadable(f"{NAME} has more than {LIMIT_BYTES} bytes")
    return data


def _mount(libc: Any, device: str, mount_point: str) -> None:
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    known = list(KERNEL_TYPES)
    reasons: dict[str, str] = {}
    for attempt in range(_ATTEMPTS):
        for kind in list(known):
            if libc.mount(device.encode(), mount_point.encode(), kind.encode(), flags, None) == 0:
                return
            code = ctypes.get_errno()
            reasons[kind] = "not in this kernel" if code == errno.ENODEV else os.strerror(code)
            if code in (errno.ENODEV, errno.EPERM, errno.EACCES, errno.EINVAL):
                # the kernel lacks it, forbids it, or says that the disc has another form
                known.remove(kind)
        if not known:
            break
        if attempt < _ATTEMPTS - 1:
            time.sleep(_PAUSE_S)
    raise Unreadable("mount: " + ", ".join(f"{kind}: {why}" for kind, why in reasons.items()))
