"""The instance metadata service and its rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.lab.conftest import Client
from waagent.lab.fabric.fabric import Fabric

ASK = {"Metadata": "true"}
COMPUTE_2018 = (
    "location name offer osType placementGroupId platformFaultDomain platformUpdateDomain publisher"
    " resourceGroupName sku subscriptionId tags version vmId vmScaleSetName vmSize zone"
)


def compute(client: Client, query: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        client.wire("GET", f"/metadata/instance/compute?{query}", ASK).body
    )
    return found


def test_an_old_version_has_the_fields_of_its_time(client: Client) -> None:
    assert sorted(compute(client, "api-version=2018-02-01")) == COMPUTE_2018.split()


@pytest.mark.parametrize(
    ("query", "has_profile"),
    [
        ("api-version=2019-06-01", False),
        ("api-version=2020-09-01", True),
        ("api-version=2021-08-01", False),
        ("api-version=2021-08-01&extended=true", True),
    ],
)
def test_the_os_profile_comes_by_version_and_by_wish(
    client: Client, query: str, has_profile: bool
) -> None:
    assert ("osProfile" in compute(client, query)) is has_profile


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/metadata/instance?api-version=2021-08-01", ASK, 200),
        ("GET", "/metadata/instance", ASK, 400),
        ("GET", "/metadata/instance?api-version=2099-01-01", ASK, 400),
        ("GET", "/metadata/instance?api-version=2021-08-01", {}, 400),
        (
            "GET",
            "/metadata/instance?api-version=2021-08-01",
            {**ASK, "X-Forwarded-For": "10.0.0.1"},
            400,
        ),
        ("POST", "/metadata/instance?api-version=2021-08-01", ASK, 405),
        ("GET", "/metadata/nothing?api-version=2021-08-01", ASK, 404),
        ("GET", "/metadata/versions", ASK, 200),
    ],
)
def test_a_request_without_its_rules_is_refused(
    client: Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert client.wire(method, path, headers).status == status


def test_one_field_comes_as_text(client: Client) -> None:
    path = "/metadata/instance/network/interface/0/ipv4/ipAddress/0/privateIpAddress"

    said = client.wire("GET", f"{path}?api-version=2021-08-01&format=text", ASK)

    assert said.body == b"10.4.0.4"


def test_fields_are_what_a_test_wants(client: Client, platform: Fabric) -> None:
    platform.change(compute={"name": "tern-07", "location": "北"})

    found = compute(client, "api-version=2018-02-01")

    assert (found["name"], found["location"]) == ("tern-07", "北")
