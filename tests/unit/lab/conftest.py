"""The emulated platform on loopback, with storage behind TLS, and a client that says what it means."""

from __future__ import annotations

import http.client
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from waagent.lab.fabric.fabric import Fabric

HEADERS = {"x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30"}
XML = {**HEADERS, "Content-Type": "text/xml;charset=utf-8"}


class Said(NamedTuple):
    """What a server answered; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A client of one fabric, each request by a connection of its own."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric

    def wire(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Said:
        return self._ask(self.fabric.wire_port, method, path, headers, body)

    def plugin(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Said:
        return self._ask(self.fabric.plugin_port, method, path, headers, body)

    def goal_state(self) -> str:
        return self.wire("GET", "/machine/?comp=goalstate", HEADERS).body.decode()

    def url_of(self, tag: str) -> str:
        """The request target that the goal state names in the element ``tag``."""
        found = re.search(f"<{tag}>(.*?)</{tag}>", self.goal_state(), re.DOTALL)
        assert found is not None
        return found[1].strip().replace("&amp;", "&")[len(self.fabric.base) :]

    def document(self, tag: str) -> str:
        return self.wire("GET", self.url_of(tag), HEADERS).body.decode()

    def plugin_headers(self) -> dict[str, str]:
        return {
            "x-ms-version": "2015-09-01",
            "x-ms-containerid": self.fabric.vm.container_id,
            "x-ms-host-config-name": self.fabric.vm.config_name,
        }

    @staticmethod
    def _ask(
        port: int, method: str, path: str, headers: dict[str, str] | None, body: bytes
    ) -> Said:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            given = {name.lower(): value for name, value in answer.getheaders()}
            return Said(answer.status, given, answer.read())
        finally:
            connection.close()


class Transport:
    """A transport certificate and its key, as an agent makes them."""

    def __init__(self, folder: Path) -> None:
        self.key, self.certificate, self.der = (
            folder / name for name in ("key.pem", "crt.pem", "crt.der")
        )
        argv = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=LinuxTransport", "-days", "730"]
        argv += ["-newkey", "rsa:2048", "-keyout", str(self.key), "-out", str(self.certificate)]
        subprocess.run(argv, check=True, capture_output=True)
        convert = ["openssl", "x509", "-in", self.certificate, "-outform", "DER", "-out", self.der]
        subprocess.run(convert, check=True)

    def open(self, envelope: bytes) -> bytes:
        argv = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", self.key]
        done = subprocess.run(argv, input=envelope, capture_output=True, check=True)
        return done.stdout


@pytest.fixture(scope="session")
def transport(tmp_path_factory: pytest.TempPathFactory) -> Transport:
    return Transport(tmp_path_factory.mktemp("transport"))


@pytest.fixture(scope="session")
def tenant_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tenant")


@pytest.fixture
def platform(tenant_folder: Path) -> Iterator[Fabric]:
    with Fabric(
        "127.0.0.1", 0, 0, folder=tenant_folder, tls=("127.0.0.1", 0), storage_host=""
    ) as made:
        yield made


@pytest.fixture
def client(platform: Fabric) -> Client:
    return Client(platform)
