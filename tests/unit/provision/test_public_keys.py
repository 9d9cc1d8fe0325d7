"""Claims about the keys in what people paste into a `Value`, and about ways to log in."""

from __future__ import annotations

import base64
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.secret import Secret
from waagent.protocol.ovf import ProvisioningRequest, PublicKey
from waagent.workers.provisioner.logins import plan_logins
from waagent.workers.provisioner.provisioning_error import Refused
from waagent.workers.provisioner.public_keys import Found, public_keys_in


def a_key(kind: str, *sizes: int) -> str:
    fields = [kind.encode(), *(bytes([7]) * size for size in sizes)]
    blob = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return f"{kind} {base64.b64encode(blob).decode()}"


ED25519 = a_key("ssh-ed25519", 32)
RSA = a_key("ssh-rsa", 3, 257)
SK = a_key("sk-ssh-ed25519@openssh.com", 32, 4)
EC = a_key("ecdsa-sha2-nistp256", 8, 65)


def wrapped(line: str, width: int, end: str = "\n") -> str:
    kind, blob = line.split()
    return (
        kind + " " + end.join(blob[at : at + width] for at in range(0, len(blob), width))
    ).replace("= ", "=")


@pytest.mark.parametrize("line", [ED25519, RSA, SK, EC])
def test_all_key_types_pass_with_what_stands_around_them(line: str) -> None:
    assert public_keys_in(f"  {line}  harbor@tern \r\n") == Found((f"{line} harbor@tern",))
    assert public_keys_in(f'no-pty,command="date" {line}').lines == (
        f'no-pty,command="date" {line}',
    )


def test_several_lines_are_several_keys() -> None:
    text = f"# mine\n{ED25519} a@b\n\n{RSA}\r\n{ED25519} a@b\n"

    assert public_keys_in(text) == Found((f"{ED25519} a@b", RSA))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n    ", " ", "\n\n"])
@pytest.mark.parametrize("width", [16, 64, 70, 76])
def test_wrapped_base64_is_joined(width: int, end: str) -> None:
    text = f"{wrapped(RSA, width, end)} harbor@tern\n{wrapped(ED25519, width, end)}"

    assert public_keys_in(text) == Found((f"{RSA} harbor@tern", ED25519))


def test_a_type_on_a_line_of_its_own_belongs_to_what_follows() -> None:
    assert public_keys_in(ED25519.replace(" ", "\n")).lines == (ED25519,)


def test_what_puttygen_saves_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    keygen = ["ssh-keygen", "-q", "-N", "", "-t", "rsa", "-b", "1024", "-C", "a: b", "-f"]
    subprocess.run([*keygen, str(file)], check=True)
    saved = subprocess.run(
        ["ssh-keygen", "-e", "-m", "RFC4716", "-f", str(file)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kind, blob, *_ = file.with_suffix(".pub").read_text().split()

    assert "BEGIN SSH2 PUBLIC KEY" in saved
    assert public_keys_in(saved) == Found((f"{kind} {blob}",))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_ssh_keygen_agrees(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", kind, "-f", str(file)], check=True)
    line = file.with_suffix(".pub").read_text().strip()

    assert public_keys_in(line).lines == (line,)
    assert public_keys_in(line.split()[0] + " " + line.split()[1][:-8]).lines == ()


@pytest.mark.parametrize(
    "text",
    [
        "ssh-rsa",
        "ssh-rsa !!",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n",
        "rm -rf /",
        RSA[:-10],
        "x" * 90,
    ],
)
def test_what_is_no_key_is_named_and_cut(text: str) -> None:
    found = public_keys_in(text)

    assert not found.lines and len(found.problems) == 1 and len(found.problems[0]) < 90


def test_a_private_key_is_never_shown() -> None:
    text = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----"

    assert public_keys_in(text).problems == ("a private key was sent in the place of a public one",)


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    public_keys_in(text)


# ways to log in


def a_request(
    *values: str, password: str = "", disable: bool | None = None, sent: int | None = None
) -> ProvisioningRequest:
    return ProvisioningRequest(
        "tern-07",
        "harbor",
        password=Secret(password) if password else None,
        disable_password_login=disable,
        public_keys=tuple(PublicKey("", value=value) for value in values),
        keys_sent=len(values) if sent is None else sent,
    )


def test_a_bad_key_beside_a_good_one_is_a_problem_and_no_more() -> None:
    logins = plan_logins(a_request("rubbish", ED25519))

    assert logins.given == (("", ED25519),) and len(logins.problems) == 1


@pytest.mark.parametrize("disable", [None, False])
def test_a_bad_key_beside_a_password_is_a_problem_and_no_more(disable: bool | None) -> None:
    assert plan_logins(a_request("rubbish", password="x", disable=disable)).problems


@pytest.mark.parametrize(
    "request_of",
    [
        a_request("rubbish"),
        a_request("rubbish", password="x", disable=True),
        a_request(sent=1),
    ],
)
def test_it_is_refused_when_nobody_could_log_in(request_of: ProvisioningRequest) -> None:
    with pytest.raises(Refused, match="nobody could log in"):
        plan_logins(request_of)


def test_without_any_key_sent_nothing_is_missed() -> None:
    assert not plan_logins(a_request()).problems


def test_a_value_wins_over_a_fingerprint_unless_it_is_no_key() -> None:
    key = PublicKey("", "A" * 40, ED25519)
    bad = PublicKey("", "B" * 40, "rubbish")

    logins = plan_logins(ProvisioningRequest("h", "u", public_keys=(key, bad), keys_sent=2))

    assert logins.given == (("", ED25519),) and logins.by_certificate == (("", "B" * 40),)
