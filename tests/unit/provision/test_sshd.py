"""Claims about where our lines stand in sshd's configuration, and about fingerprints."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolNotFound, run
from waagent.workers.provisioner import host_keys, sshd

LOG = logging.getLogger("test")
NO_PASSWORDS = sshd.directives(False, 180)


def without_sshd(argv: list[str], **options: object) -> Finished:
    raise ToolNotFound("tool is missing", argv[0], "install it")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n", True),
        ("include sshd_config.d/*.conf\n", True),
        ("#Include /etc/ssh/sshd_config.d/*.conf\n", False),
        ("PasswordAuthentication yes\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
        ("Match user x\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
        ("Include /etc/ssh/other.d/*.conf\n", False),
        ("", False),
    ],
)
def test_a_drop_in_is_used_only_where_it_wins(text: str, first: bool) -> None:
    assert sshd.reads_drop_ins_first(text) is first


def test_the_block_stands_before_a_trailing_match_and_is_replaced_not_added() -> None:
    text = "Port 22\nMatch user x\n  PasswordAuthentication yes\n"

    once = sshd.with_block(text, NO_PASSWORDS)
    again = sshd.with_block(once, sshd.directives(True, 60))

    assert once.splitlines()[1] == "PasswordAuthentication no"
    assert once.endswith(text)
    assert again.count(sshd.BEGIN) == 1 and "PasswordAuthentication no" not in again


@given(st.text(alphabet="ab #\nM", max_size=60))
def test_the_image_s_lines_stay_as_they_are(text: str) -> None:
    once = sshd.with_block(text, NO_PASSWORDS)

    assert sshd.with_block(once, NO_PASSWORDS) == once
    assert sshd.with_block(once, ()) == "\n".join(text.splitlines()) + "\n"


def test_what_the_request_leaves_open_is_not_written() -> None:
    assert sshd.directives(None, 0) == ()
    assert sshd.directives(True, 180) == ("PasswordAuthentication yes", "ClientAliveInterval 180")
    assert "KbdInteractiveAuthentication no" in NO_PASSWORDS


def test_with_an_include_the_main_file_is_not_touched(tmp_path: Path) -> None:
    folder = tmp_path / "etc/ssh/sshd_config.d"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/waagent").mkdir(parents=True)
    main = tmp_path / "etc/ssh/sshd_config"
    main.write_text("Include /etc/ssh/sshd_config.d/*.conf\n")

    file = sshd.configure_sshd(Paths(tmp_path), "/etc/ssh", NO_PASSWORDS, without_sshd, LOG)

    assert file == str(folder / "10-waagent.conf")
    assert main.read_text() == "Include /etc/ssh/sshd_config.d/*.conf\n"
    assert "PasswordAuthentication no\n" in (folder / "10-waagent.conf").read_text()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_fingerprint_is_the_one_ssh_keygen_prints(tmp_path: Path, kind: str) -> None:
    assert host_keys.renew_host_keys(tmp_path, kind, run, LOG)
    file = str(tmp_path / f"ssh_host_{kind}_key.pub")
    md5, sha256 = (
        subprocess.run(
            ["ssh-keygen", "-E", name, "-lf", file], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        for name in ("md5", "sha256")
    )

    found = host_keys.fingerprint_of(tmp_path, kind)

    assert found == host_keys.Fingerprint(md5.replace("MD5:", "").replace(":", ""), sha256, file)


def test_new_host_keys_replace_all_old_ones(tmp_path: Path) -> None:
    host_keys.renew_host_keys(tmp_path, "auto", run, LOG)
    old = (tmp_path / "ssh_host_ed25519_key").read_bytes()

    host_keys.renew_host_keys(tmp_path, "ed25519", run, LOG)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
    ]
    assert (tmp_path / "ssh_host_ed25519_key").read_bytes() != old
    assert (tmp_path / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600


def test_without_the_wanted_type_another_one_speaks_for_the_machine(tmp_path: Path) -> None:
    host_keys.renew_host_keys(tmp_path, "ed25519", run, LOG)

    found = host_keys.fingerprint_of(tmp_path, "rsa")

    assert found is not None and found.file.endswith("ssh_host_ed25519_key.pub")


@given(st.binary(max_size=80))
def test_any_public_key_file_is_read_without_an_error(data: bytes) -> None:
    host_keys.public_blob(data)
