"""Writes boot DVDs as the platform attaches them: one image that is ISO9660, Joliet and UDF at
once, and odd ones for tests.
"""

from __future__ import annotations

import io
from pathlib import Path

import pycdlib

from waagent.lab.fabric.values import LabError

SECTOR_BYTES = 2048
VARIANTS = ("good", "without_ovf", "udf_only", "iso_only", "damaged", "empty")


def write_dvd(path: Path, ovf: bytes, variant: str = "good") -> Path:
    """Write the image to ``path``.

    ``variant``: `good`; `without_ovf` (another file instead of ovf-env.xml); `udf_only` (no ISO9660
    descriptors, which a reader of ISO9660 refuses); `iso_only` (no Joliet, no UDF); `damaged`
    (directories overwritten); `empty` (an empty drive: zeros).
    """
    if variant not in VARIANTS:
        raise LabError(f"no DVD variant {variant!r}", "lab/dvd.py", "one of " + " ".join(VARIANTS))
    image = _image(
        {"readme.txt": b"nothing here\n"} if variant == "without_ovf" else {"ovf-env.xml": ovf},
        is_plain=variant == "iso_only",
    )
    if variant == "udf_only":
        image = _without_iso9660(image)
    elif variant == "damaged":
        image = image[: 20 * SECTOR_BYTES] + b"\xff" * (len(image) - 20 * SECTOR_BYTES)
    elif variant == "empty":
        image = b"\0" * len(image)
    path.write_bytes(image)
    return path


def _image(files: dict[str, bytes], *, is_plain: bool) -> bytes:
    disc = pycdlib.PyCdlib()
    if is_plain:
        disc.new(interchange_level=3, vol_ident="OVF")
    else:
        disc.new(interchange_level=3, joliet=3, udf="2.60", vol_ident="OVF")
    for name, content in files.items():
        stem, _, suffix = name.upper().replace("-", "_").partition(".")
        path, stream = f"/{stem}.{suffix};1", io.BytesIO(content)
        if is_plain:
            disc.add_fp(stream, len(content), path)
        else:
            disc.add_fp(stream, len(content), path, joliet_path=f"/{name}", udf_path=f"/{name}")
    written = io.BytesIO()
    disc.write_fp(written)
    disc.close()
    return written.getvalue()


def _without_iso9660(image: bytes) -> bytes:
    """The same image with the ISO9660 volume descriptors blanked: what is left is UDF alone."""
    made = bytearray(image)
    sector = 16
    while made[sector * SECTOR_BYTES + 1 : sector * SECTOR_BYTES + 6] == b"CD001":
        made[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES] = bytes(SECTOR_BYTES)
        sector += 1
    return bytes(made)
