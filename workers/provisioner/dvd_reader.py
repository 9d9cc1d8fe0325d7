"""A program of its own, DEVICE MOUNT_POINT: prints the ovf-env.xml of a disc.

A child, because a drive may hang, an image may be hostile to its parser, and the document holds a
password that is then gone with this process. First the image is read in user space (hardened
kernels have no udf), by pycdlib and, where UDF stands alone, by a reader of our own; what both
refuse is mounted in a mount namespace of our own, so that nobody else sees it and nothing stays
mounted. Exit status: as of `workers.disc`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from waagent.workers import disc
from waagent.workers.disc import NoFile, Unreadable

NAME = "ovf-env.xml"
LIMIT_BYTES = 1024 * 1024
KERNEL_TYPES = ("udf", "iso9660", "vfat")
_ATTEMPTS = 5


def main() -> int:
    """Print the document; the exit status."""
    device, mount_point = sys.argv[1:]
    status, document = disc.read_by(
        device,
        (
            lambda: disc.with_image(device, _document_in),
            lambda: read_udf(device),
            lambda: read_by_mounting(device, mount_point),
        ),
    )
    if document is not None:
        sys.stdout.buffer.write(document)
        sys.stdout.buffer.flush()
    return status


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


def read_udf(device: str) -> bytes:
    """A disc that has UDF alone."""
    from waagent.workers.provisioner import udf

    try:
        with open(device, "rb") as disc:
            document = udf.Volume(disc).read_file(NAME, LIMIT_BYTES)
    except (udf.UdfError, OSError) as error:
        raise Unreadable(f"udf: {error}") from error
    # foreign bytes, in a process made for them
    except Exception as error:
        raise Unreadable(f"udf: {type(error).__name__}") from error
    if document is None:
        raise NoFile
    return document


def read_by_mounting(device: str, mount_point: str) -> bytes:
    """By the kernel, read-only and harmless, seen by nobody but this process."""
    disc.mount(device, mount_point, KERNEL_TYPES, attempts=_ATTEMPTS)
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
