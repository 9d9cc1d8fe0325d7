"""Boot DVDs are what a reader in user space expects, and the odd ones are refused by it."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pycdlib
import pytest
from pycdlib.pycdlibexception import PyCdlibException

from waagent.lab.dvd import write_dvd
from waagent.lab.ovf import WA, Order, ovf_env


def read(path: Path, **where: str) -> bytes:
    disc = pycdlib.PyCdlib()
    disc.open(str(path))
    stream = io.BytesIO()
    disc.get_file_from_iso_fp(stream, **where)
    disc.close()
    return stream.getvalue()


def test_the_document_is_found_by_joliet_and_by_udf(tmp_path: Path) -> None:
    document = ovf_env(Order(host_name="web1", password="<&>"))

    path = write_dvd(tmp_path / "dvd.iso", document)

    assert read(path, joliet_path="/ovf-env.xml") == document == read(path, udf_path="/ovf-env.xml")


@pytest.mark.parametrize("variant", ["udf_only", "damaged", "empty"])
def test_an_odd_disc_cannot_be_opened(tmp_path: Path, variant: str) -> None:
    path = write_dvd(tmp_path / "dvd.iso", ovf_env(Order()), variant)

    with pytest.raises(PyCdlibException):
        read(path, joliet_path="/ovf-env.xml")


def test_what_is_ordered_is_in_the_document() -> None:
    found = ElementTree.fromstring(
        ovf_env(
            Order(
                "web1", "ada", ("ssh-ed25519 AAAA x",), password="a<b", custom_data=b"#!/bin/sh\n"
            )
        )
    )

    texts = {
        item.tag.split("}")[1]: item.text
        for item in found.iter()
        if item.text and item.tag.startswith(f"{{{WA}}}")
    }

    assert (texts["HostName"], texts["UserName"], texts["Value"], texts["UserPassword"]) == (
        "web1",
        "ada",
        "ssh-ed25519 AAAA x",
        "a<b",
    )
    assert texts["CustomData"] == "IyEvYmluL3NoCg=="
