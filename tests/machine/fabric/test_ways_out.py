"""Which way requests go: a proxy sees what goes to storage and nothing else, and the openssl that
is named is the one that runs.
"""

from __future__ import annotations

import http.client
import http.server
import os
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from waagent.lab.fabric.values import Extension, Settings


class Proxy(http.server.ThreadingHTTPServer):
    """Passes whole URLs on to the platform, and remembers them."""

    def __init__(self, to: int) -> None:
        super().__init__(("127.0.0.1", 0), PassOn)
        self.to = to
        self.seen: list[tuple[str, str]] = []


class PassOn(http.server.BaseHTTPRequestHandler):
    server: Proxy

    def _pass_on(self) -> None:
        self.server.seen.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        onwards = http.client.HTTPConnection("127.0.0.1", self.server.to, timeout=30)
        headers = {**dict(self.headers), "Host": parts.netloc}
        onwards.request(self.command, f"{parts.path}?{parts.query}", body, headers)
        answer = onwards.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = _pass_on

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing on the console."""


@pytest.fixture
def proxy(fabric) -> Iterator[Proxy]:
    with Proxy(fabric.wire_port) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_proxy_sees_blobs_and_packages_and_nothing_else(stage, proxy: Proxy) -> None:
    package = os.urandom(200_000)
    stage.fabric.set_extensions([Extension("Contoso.Sample", "1.2.0", package=package)])
    stage.fabric.fault("status", "status:502")
    stage.fabric.fault("artifact", "status:502")
    stage.environment()
    stage.client(more={"HttpProxy.Host": "127.0.0.1", "HttpProxy.Port": proxy.server_port})
    stage.until(lambda: stage.fabric.statuses, "a status in storage")
    stage.ask(
        "extension_runner",
        ("fabric_client.package", {"name": "Contoso.Sample", "version": "1.2.0"}, 60.0),
    )

    stage.until(lambda: stage.answers("fabric_client.package"), "the package")
    stage.until(lambda: stage.fabric.observations, "observations of metadata and host")

    assert stage.answers("fabric_client.package")[0][1] == ""
    hosts = {urlsplit(url).hostname for _, url in proxy.seen}
    assert hosts == {stage.fabric.storage}
    assert {method for method, _ in proxy.seen} == {"GET", "PUT"}
    assert "sig=" not in stage.supervisor.log_text()


def test_a_proxy_without_a_port_is_named(stage) -> None:
    stage.environment()
    stage.client(more={"HttpProxy.Host": "proxy.example"})
    stage.until(lambda: stage.fabric.statuses, "a status")

    stage.until(
        lambda: "HttpProxy.Host without HttpProxy.Port" in stage.supervisor.log_text(), "its name"
    )


def test_the_openssl_that_is_named_does_the_work(stage) -> None:
    said = stage.root / "calls"
    wrapper = stage.root / "my-openssl"
    wrapper.write_text(f'#!/bin/sh\necho "$1" >> {said}\nexec openssl "$@"\n')
    wrapper.chmod(0o755)
    settings = Settings(public={"k": 1}, protected={"secret": "x"}, sequence=4)
    stage.fabric.set_extensions([Extension("Contoso.Sample", "1.2.0", settings=(settings,))])
    stage.environment()
    stage.client()
    stage.supervisor.start(
        "certificate_keeper",
        configuration={"Lib.Dir": "/var/lib/waagent", "OS.OpensslPath": str(wrapper)},
        serves=True,
    )

    stage.until(lambda: list(stage.supervisor.paths.library.glob("*.prv")), "the key")
    assert {"req", "cms", "pkcs12", "x509", "pkey"} <= set(said.read_text().split())


@pytest.mark.parametrize("fault", ["status:410", "stale"])
def test_a_host_that_says_stale_to_every_status_does_not_set_the_pace(stage, fault: str) -> None:
    stage.fabric.fault("status", fault)
    stage.environment()
    stage.client(more={"Extensions.GoalStatePeriod": 6})
    stage.until(lambda: _count(stage, "status"), "a status that is refused")
    started = _count(stage, "goal_state"), _count(stage, "extensions_config")

    over = threading.Event()
    over.wait(30.0)

    asked = _count(stage, "goal_state") - started[0]
    read = _count(stage, "extensions_config") - started[1]
    assert asked <= 12 and read <= 12, (asked, read)
    stage.fabric.clear_faults()
    stage.until(lambda: stage.fabric.statuses, "a status after it")


def _count(stage, target: str) -> int:
    return sum(item.target == target for item in stage.fabric.recorded)


def test_a_host_that_accepts_and_never_answers_costs_fifteen_seconds_once(stage) -> None:
    package = os.urandom(200_000)
    stage.fabric.set_extensions(
        [
            Extension("Contoso.One", "1.2.0", package=package),
            Extension("Contoso.Two", "1.2.0", package=package),
        ]
    )
    stage.fabric.fault("artifact", "hang", None, 100.0)
    stage.environment()
    stage.client(more={"HttpProxy.Host": "127.0.0.1", "HttpProxy.Port": stage.fabric.wire_port})
    stage.until(lambda: stage.fabric.statuses, "a status")
    for name in ("One", "Two"):
        began = len(stage.answers("fabric_client.package"))
        asked = ("fabric_client.package", {"name": f"Contoso.{name}", "version": "1.2.0"}, 120.0)
        stage.ask("extension_runner", asked)
        stage.until(
            lambda began=began: len(stage.answers("fabric_client.package")) > began, "a package"
        )
        stage.supervisor.kill("extension_runner")

    assert [error for _, error in stage.answers("fabric_client.package")] == ["", ""]
    hung = [item for item in stage.fabric.recorded if item.target == "artifact"]
    assert len(hung) == 1
