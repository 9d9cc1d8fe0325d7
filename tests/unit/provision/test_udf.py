"""Claims about discs that have UDF alone."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waagent.lab.dvd import write_dvd
from waagent.workers.provisioner import udf

DOCUMENT = b"<Environment/>" + b"x" * 9000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_dvd(tmp_path_factory.mktemp("udf") / "u.iso", DOCUMENT, "udf_only").read_bytes()


def test_the_file_is_read_whatever_its_letters(image: bytes) -> None:
    volume = udf.Volume(io.BytesIO(image))

    assert volume.read_file("OVF-env.xml", 1 << 20) == DOCUMENT
    assert volume.read_file("other.xml", 1 << 20) is None
    with pytest.raises(udf.UdfError, match="the limit is 10"):
        volume.read_file("ovf-env.xml", 10)


def test_what_genisoimage_writes_is_read(tmp_path: Path) -> None:
    if shutil.which("genisoimage") is None:
        pytest.skip("genisoimage is not installed")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ovf-env.xml").write_bytes(DOCUMENT)
    (tmp_path / "in/folder").mkdir()
    subprocess.run(
        ["genisoimage", "-quiet", "-udf", "-o", "u.iso", "in"], cwd=tmp_path, check=True, timeout=60
    )

    with (tmp_path / "u.iso").open("rb") as disc:
        assert udf.Volume(disc).read_file("ovf-env.xml", 1 << 20) == DOCUMENT


@pytest.mark.parametrize("data", [b"", bytes(600 * 2048), b"\xff" * (600 * 2048)])
def test_what_is_no_udf_is_refused(data: bytes) -> None:
    with pytest.raises(udf.UdfError):
        udf.Volume(io.BytesIO(data))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_disc_is_read_or_refused(image: bytes, data: st.DataObject) -> None:
    used = [at for at in range(0, len(image) // 2048) if any(image[at * 2048 : at * 2048 + 2048])]
    broken = bytearray(image)
    sector = data.draw(st.sampled_from(used)) * 2048
    at = sector + data.draw(st.integers(0, 600))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    broken[at : at + len(noise)] = noise
    tag = broken[sector : sector + 16]
    broken[sector + 4] = (sum(tag) - tag[4]) & 0xFF  # as if it had been written so

    try:
        udf.Volume(io.BytesIO(bytes(broken))).read_file("ovf-env.xml", 1 << 20)
    except (udf.UdfError, struct.error, IndexError):
        pass  # the process made for it takes any error of its reader
