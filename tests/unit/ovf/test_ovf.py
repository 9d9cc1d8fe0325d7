"""Claims about reading, refusing and redacting ovf-env.xml."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.base.secret import Secret
from waagent.protocol.ovf import (
    NoProvisioningSection,
    OvfError,
    decode_custom_data,
    read_ovf,
    redact_ovf,
)

FINGERPRINT = "0123456789abcdef0123456789abcdef01234567"
PASSWORD = "Str0ng & l0ng <ü>"


def a_document(
    inside: str = "", *, host: str = "tern-07", platform: str = "", version: str = "1.0"
) -> bytes:
    return f"""<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
  <wa:ProvisioningSection><wa:Version>{version}</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
      <HostName>{host}</HostName><UserName>harbor</UserName>{inside}
    </LinuxProvisioningConfigurationSet></wa:ProvisioningSection>{platform}
</Environment>""".encode()


FULL = a_document(
    f"""<UserPassword>Str0ng &amp; l0ng &lt;ü&gt;</UserPassword>
    <DisableSshPasswordAuthentication>TRUE</DisableSshPasswordAuthentication>
    <SSH><PublicKeys><PublicKey><Fingerprint>{FINGERPRINT}</Fingerprint><Path>$HOME/harbor/.ssh/authorized_keys</Path>
    <Value>ssh-ed25519 AAAAC3Nza harbor@tern
    </Value></PublicKey></PublicKeys>
    <KeyPairs><KeyPair><Fingerprint>{FINGERPRINT}</Fingerprint><Path>$HOME/harbor/.ssh/id_rsa</Path></KeyPair></KeyPairs></SSH>
    <CustomData>IyEv
    Cg==</CustomData>""",
    platform="""<wa:PlatformSettingsSection><wa:Version>1.0</wa:Version><wa:PlatformSettings>
    <wa:ProvisionGuestAgent>False</wa:ProvisionGuestAgent><wa:PreprovisionedVm>true</wa:PreprovisionedVm>
    </wa:PlatformSettings></wa:PlatformSettingsSection>""",
)


def test_every_element_becomes_a_typed_value() -> None:
    request = read_ovf(FULL)

    assert (request.host_name, request.user_name) == ("tern-07", "harbor")
    assert request.password is not None and request.password.reveal() == PASSWORD
    assert request.disable_password_login is True
    key = request.public_keys[0]
    assert (key.fingerprint, key.value) == (
        FINGERPRINT.upper(),
        "ssh-ed25519 AAAAC3Nza harbor@tern",
    )
    assert request.key_pairs[0].path == "$HOME/harbor/.ssh/id_rsa"
    assert request.custom_data is not None and decode_custom_data(request.custom_data) == b"#!/\n"
    assert request.provision_guest_agent is False and request.preprovisioned is True


def test_what_is_absent_is_not_invented() -> None:
    request = read_ovf(a_document())

    assert (
        request.password is None
        and request.disable_password_login is None
        and request.custom_data is None
    )
    assert request.provision_guest_agent is True and request.preprovisioned is False


def test_an_empty_password_is_no_password() -> None:
    assert read_ovf(a_document("<UserPassword></UserPassword>")).password is None


def test_other_prefixes_mean_the_same() -> None:
    other = a_document().replace(b"wa:", b"ns1:").replace(b"xmlns:wa", b"xmlns:ns1")

    assert read_ovf(other) == read_ovf(a_document())


@pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\0\0", b"  noise ", b"\xef\xbb\xbf\0"])
def test_what_writers_put_in_front_is_passed_over(front: bytes) -> None:
    assert read_ovf(front + a_document() + b"\0\0\0").host_name == "tern-07"


def test_without_an_xml_declaration_it_is_read_all_the_same() -> None:
    assert read_ovf(a_document().partition(b"\n")[2]).host_name == "tern-07"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"<html></html>", "Environment"),
        (a_document(host=""), "HostName is missing"),
        (a_document()[:300], "not well-formed"),
        (a_document("<HostName>second</HostName>"), "HostName stands 2 times"),
        (a_document(version="2.0"), "has version 2.0"),
        (a_document("x" * (1 << 20)), "limit"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + a_document().partition(b"\n")[2], "DTD"),
    ],
)
def test_a_bad_document_is_refused_with_its_reason(data: bytes, says: str) -> None:
    with pytest.raises(OvfError, match=says):
        read_ovf(data)


@pytest.mark.parametrize(
    ("inside", "finding"),
    [
        (
            "<DisableSshPasswordAuthentication>maybe</DisableSshPasswordAuthentication>",
            "DisableSshPasswordAuthentication is 'maybe', neither true nor false: not honoured:"
            " ovf-env.xml:5",
        ),
        ("<SSH><PublicKey><Path>/x</Path></PublicKey></SSH>", "neither Value nor Fingerprint"),
        ("<SSH><PublicKey><Fingerprint>zz</Fingerprint></PublicKey></SSH>", "'ZZ'"),
        ("<SSH><KeyPair><Path>/x</Path></KeyPair></SSH>", "KeyPair has no Fingerprint"),
        ("<CustomData>eA==</CustomData><CustomData>eQ==</CustomData>", "the first one counts"),
        ("<UserPassword>x</UserPassword><UserPassword>y</UserPassword>", "the first one counts"),
        (f"<SSH>{'<PublicKey><Value>x</Value></PublicKey>' * 65}</SSH>", "first 64 are taken"),
    ],
)
def test_an_odd_optional_detail_is_a_finding(inside: str, finding: str) -> None:
    request = read_ovf(a_document(inside))

    assert finding in " ".join(request.findings)
    assert (request.host_name, request.user_name) == ("tern-07", "harbor")


def test_a_name_that_stands_twice_and_means_the_same_is_one() -> None:
    assert read_ovf(a_document("<HostName>tern-07</HostName>")).host_name == "tern-07"


def test_a_fingerprint_may_have_colons_and_small_letters() -> None:
    with_colons = ":".join(FINGERPRINT[at : at + 2] for at in range(0, 40, 2))

    request = read_ovf(
        a_document(f"<SSH><PublicKey><Fingerprint>{with_colons}</Fingerprint></PublicKey></SSH>")
    )

    assert request.public_keys[0].fingerprint == FINGERPRINT.upper()
    assert request.keys_sent == 1 and not request.findings


def test_a_disc_for_somebody_else_is_told_apart() -> None:
    with pytest.raises(NoProvisioningSection):
        read_ovf(b'<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"/>')


@pytest.mark.parametrize(
    "element",
    [
        "<UserPassword>geheim</UserPassword>",
        "<UserPassword a='b'><![CDATA[geheim]]></UserPassword>",
        "<q:AdminPassword xmlns:q='urn:x'>geheim</q:AdminPassword>",
        "<UserPassword>a<b>geheim</b>geheim</UserPassword>",
        "<!-- geheim --><UserPassword>geheim\ngeheim</UserPassword>",
    ],
)
def test_the_redacted_copy_has_no_password_in_any_form(element: str) -> None:
    copy = redact_ovf(a_document(element))

    assert b"geheim" not in copy
    assert b">*<" in copy
    assert read_ovf(copy).user_name == "harbor"


def test_a_newer_minor_version_is_read() -> None:
    assert read_ovf(a_document(version="1.7")).version == "1.7"


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret(PASSWORD)

    assert (
        PASSWORD not in f"{secret} {secret!r} {secret:>4} {[secret]} {read_ovf(FULL)}" + f"{secret}"
    )
    assert type(secret.reveal()) is str


def test_custom_data_that_is_no_base64_is_an_error_of_this_room() -> None:
    with pytest.raises(OvfError, match="base64"):
        decode_custom_data(Secret("%%%"))


@given(st.binary(max_size=400))
def test_noise_is_an_error_of_this_room_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(DocumentError):
        read_ovf(noise)


@given(st.integers(0, len(FULL)), st.integers(0, 40), st.binary(max_size=12))
def test_a_damaged_document_is_read_or_refused(at: int, cut: int, noise: bytes) -> None:
    damaged = FULL[:at] + noise + FULL[at + cut :]

    try:
        read_ovf(damaged)
        redact_ovf(damaged)
    except OvfError as error:
        assert PASSWORD not in str(error)
