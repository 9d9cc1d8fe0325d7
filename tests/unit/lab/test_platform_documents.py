"""Every optional element of the platform's documents, on request."""

from __future__ import annotations

import base64
import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from tests.unit.lab.conftest import HEADERS, Client, Said, Transport
from waagent.lab.fabric.fabric import Fabric
from waagent.lab.handlers import packages

HELLO = {"name": "Contoso.Hello", "version": "1.0.0", "public": {"a": 1}}


def vm_settings(client: Client, **more: str) -> Said:
    headers = {**client.plugin_headers(), "x-ms-client-correlationid": str(uuid.uuid4()), **more}
    return client.plugin("GET", "/vmSettings", headers)


def read(platform: Fabric, url: str) -> bytes:
    """By TLS, with the lab's authority and no other."""
    context = ssl.create_default_context(cafile=str(platform.authority.certificate))
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def test_the_families_of_agents_have_manifests_that_are_there(
    client: Client, platform: Fabric
) -> None:
    uris = re.findall("<Uri>(.*?)</Uri>", client.document("ExtensionsConfig"))

    found = [read(platform, uri.replace("&amp;", "&")) for uri in uris]

    assert len(found) == 2 and all(b"<Version>2.15.0.1</Version>" in body for body in found)


def test_a_manifest_lies_at_each_of_its_locations_until_it_vanishes(
    client: Client, platform: Fabric
) -> None:
    platform.set_extensions([{**HELLO, "additional_locations": 2}])
    text = client.document("ExtensionsConfig")
    urls = re.findall(r'location="(.*?)"', text)
    urls += re.findall("<additionalLocation>(.*?)</additionalLocation>", text)
    urls = [url.replace("&amp;", "&") for url in urls]

    found = {url: read(platform, url) for url in urls}
    platform.vanish("/packages/Contoso.Hello_manifest.xml")

    assert len(found) == 4 and len(set(found.values())) == 1
    with pytest.raises(urllib.error.HTTPError, match="404"):
        read(platform, urls[0])


def test_vm_settings_say_what_extensions_config_says_until_fast_track(
    client: Client, platform: Fabric
) -> None:
    platform.set_extensions([HELLO])
    before = json.loads(vm_settings(client).body)
    incarnation = platform.set_fast_track([{**HELLO, "sequence": 4}])
    after = json.loads(vm_settings(client).body)

    assert before["extensionGoalStatesSource"] == "Fabric"
    assert [item["name"] for item in before["extensionGoalStates"]] == ["Contoso.Hello"]
    assert after["extensionGoalStatesSource"] == "FastTrack"
    assert after["extensionGoalStates"][0]["settingsSeqNo"] == 4
    key = "extensionsLastModifiedTickCount"
    assert after[key] > before[key]
    assert (incarnation, 'seqNo="0"' in client.document("ExtensionsConfig")) == (2, True)


def test_the_etag_of_vm_settings_changes_with_them_alone(client: Client, platform: Fabric) -> None:
    first = vm_settings(client)
    etag = first.headers["etag"]
    same = vm_settings(client, **{"if-none-match": etag})
    platform.set_fast_track([HELLO])
    other = vm_settings(client, **{"if-none-match": etag})

    assert (first.status, same.status, same.body, other.status) == (200, 304, b"", 200)
    assert etag.isdigit() and same.headers["etag"] == etag != other.headers["etag"]


@pytest.mark.parametrize(
    ("case", "key"),
    [("camel", "gaFamilies"), ("pascal", "GaFamilies"), ("lower", "gafamilies")],
)
def test_keys_of_vm_settings_come_in_every_spelling(
    client: Client, platform: Fabric, case: str, key: str
) -> None:
    platform.change(vm_settings_case=case)

    assert key in json.loads(vm_settings(client).body)


def test_vm_settings_may_be_unknown_to_the_host(client: Client, platform: Fabric) -> None:
    platform.change(supports_vm_settings=False)

    assert vm_settings(client).status == 404


def test_a_remote_user_has_a_password_for_the_transport_key(
    client: Client, platform: Fabric, transport: Transport
) -> None:
    none = "RemoteAccessInfo" in client.goal_state()
    user = {"name": "jit", "password": "päss", "expires": "Fri, 05 Jun 2026 14:00:00 UTC"}
    platform.set_remote_users([user])
    header = base64.b64encode(transport.der.read_bytes()).decode()
    headers = {**HEADERS, "x-ms-guest-agent-public-x509-cert": header}
    url = client.url_of("RemoteAccessInfo")

    text = client.wire("GET", url, headers).body.decode()
    refused = client.wire("GET", url, HEADERS)

    found = re.search("<Password>(.*?)</Password>", text)
    assert found is not None and not none and refused.status == 400
    assert transport.open(base64.b64decode(found[1])).decode("utf-16") == "päss"
    assert "<Name>jit</Name>" in text and "Fri, 05 Jun 2026" in text


def test_the_artifacts_profile_says_whether_extensions_wait(
    client: Client, platform: Fabric
) -> None:
    platform.goal_state(on_hold=True)
    text = client.document("ExtensionsConfig")
    url = re.search("<InVMArtifactsProfileBlob>(.*?)</InVMArtifactsProfileBlob>", text)

    assert url is not None
    profile = json.loads(read(platform, url[1].replace("&amp;", "&")).rstrip(b"\0"))
    assert profile["onHold"] is True


def test_a_signature_of_the_package_can_be_verified(
    client: Client, platform: Fabric, tmp_path: Path
) -> None:
    package = packages.hello()
    platform.set_extensions([{**HELLO, "package": package, "signature": "make"}])
    found = re.search('encodedSignature="(.*?)"', client.document("ExtensionsConfig"))
    (tmp_path / "package").write_bytes(package)

    argv = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-noverify"]
    argv += ["-content", str(tmp_path / "package"), "-out", "/dev/null"]
    assert found is not None
    done = subprocess.run(argv, input=base64.b64decode(found[1]), capture_output=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unknown_authority", "unable to get local issuer|self.signed"),
        ("wrong_name", "IP address mismatch"),
        ("expired", "expired"),
    ],
)
def test_a_certificate_may_be_wrong(platform: Fabric, kind: str, reason: str) -> None:
    platform.fault("tls", kind, times=1)
    url = platform.blob_url("/agents-1/Prod_manifest.xml")

    with pytest.raises(urllib.error.URLError, match=reason):
        read(platform, url)
    assert read(platform, url)


def test_the_platform_goes_away_and_comes_back_on_the_same_ports(
    client: Client, platform: Fabric
) -> None:
    before = client.goal_state()
    platform.go_away()
    with pytest.raises(ConnectionRefusedError):
        client.goal_state()
    platform.come_back()

    assert client.goal_state() == before
