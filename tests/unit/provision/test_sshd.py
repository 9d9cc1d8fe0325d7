"""Claims about where our lines stand in sshd's configuration, and about fingerprints."""

from __future__ import annotations

import logging
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro import sshd_later, sshd_settings
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError, ToolNotFound
from waagent.distro.sshd_settings import BEGIN, END, with_block, without_block
from waagent.workers.provisioner import host_keys, sshd

LOG = logging.getLogger("test")
NO_PASSWORDS = sshd.wanted_settings(False, 180)
INCLUDE = "Include /etc/ssh/sshd_config.d/*.conf\n"
OPTIONS = frozenset(NO_PASSWORDS)


def a_root(root: Path, files: dict[str, str]) -> Paths:
    """Files below /etc/ssh, unless their name begins at the root."""
    paths = Paths(root)
    paths.library.mkdir(parents=True)
    for name, text in files.items():
        file = paths.under(name if name.startswith("/") else f"/etc/ssh/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return paths


def without_sshd(argv: list[str], **options: object) -> Finished:
    raise ToolNotFound("tool is missing", argv[0], "install it")


def drop_in_of(paths: Paths) -> str:
    main = sshd_settings.main_file(paths, "/etc/ssh")
    assert main is not None
    read = sshd_settings.read_settings(paths, main, "/etc/ssh")
    file = sshd_settings.winning_drop_in(paths, read, OPTIONS)
    return "" if file is None else str(file.relative_to(paths.root))


@pytest.mark.parametrize(
    ("files", "drop_in"),
    [
        ({"sshd_config": INCLUDE + "PasswordAuthentication yes\n"}, "10"),
        ({"sshd_config": "include sshd_config.d/*.conf\n"}, "10"),
        ({"sshd_config": "#" + INCLUDE}, ""),
        ({"sshd_config": "PasswordAuthentication yes\n" + INCLUDE}, ""),
        ({"sshd_config": "Match user x\n" + INCLUDE}, ""),
        ({"sshd_config": "Match user x\nMatch all\n" + INCLUDE}, "10"),
        ({"sshd_config": "Include /etc/ssh/sshd_config.d/x*\n"}, ""),
        ({"sshd_config": "Include a/*.conf\n" + INCLUDE, "a/1.conf": "X11Forwarding no"}, "a"),
        ({"sshd_config": ""}, ""),
        ({"sshd_config": INCLUDE, "sshd_config.d/05-x.conf": "PasswordAuthentication yes"}, "00"),
        (
            {"sshd_config": INCLUDE, "sshd_config.d/00-h.conf": "PasswordAuthentication yes"},
            "00-00",
        ),
        ({"sshd_config": INCLUDE, "sshd_config.d/50-x.conf": "PasswordAuthentication yes"}, "10"),
        ({"/usr/etc/ssh/sshd_config": "Include /usr/etc/ssh/d/*.conf\n" + INCLUDE}, "10"),
    ],
)
def test_a_drop_in_stands_before_whatever_sets_the_option(
    tmp_path: Path, files: dict[str, str], drop_in: str
) -> None:
    folder = "etc/ssh/a" if drop_in == "a" else "etc/ssh/sshd_config.d"
    name = "10" if drop_in == "a" else drop_in

    found = drop_in_of(a_root(tmp_path, files))

    assert found == (f"{folder}/{name}-waagent.conf" if drop_in else "")


def test_the_block_stands_before_a_trailing_match_and_is_replaced_not_added() -> None:
    text = "Port 22\nMatch user x\n  PasswordAuthentication yes\n"

    once = with_block(text, ("PasswordAuthentication no",))
    again = with_block(once, ("ClientAliveInterval 60",))

    assert once.splitlines()[:2] == [BEGIN, "PasswordAuthentication no"]
    assert once.endswith(text)
    assert again.count(BEGIN) == 1 and "PasswordAuthentication no" not in again


@given(st.text(alphabet="ab #\nM", max_size=60))
def test_the_image_s_lines_stay_as_they_are(text: str) -> None:
    once = with_block(text, ("Port 23",))

    assert with_block(once, ("Port 23",)) == once
    assert without_block(once) == "".join(line + "\n" for line in text.splitlines())


def test_what_the_request_leaves_open_is_not_wanted() -> None:
    assert sshd.wanted_settings(None, 0) == {}
    assert sshd.wanted_settings(True, 180) == {
        "passwordauthentication": "yes",
        "clientaliveinterval": "180",
    }
    assert NO_PASSWORDS["kbdinteractiveauthentication"] == "no"


def test_with_an_include_the_main_file_is_not_touched(tmp_path: Path) -> None:
    paths = a_root(tmp_path, {"sshd_config": INCLUDE})

    file = sshd.configure_sshd(sshd.Sshd(paths, "/etc/ssh", without_sshd, LOG), NO_PASSWORDS)

    assert file == str(tmp_path / "etc/ssh/sshd_config.d/10-waagent.conf")
    assert (tmp_path / "etc/ssh/sshd_config").read_text() == INCLUDE
    assert "PasswordAuthentication no\n" in Path(file).read_text()


def test_a_vendor_s_file_stays_and_no_main_file_is_made(tmp_path: Path) -> None:
    paths = a_root(tmp_path, {"/usr/etc/ssh/sshd_config": INCLUDE})

    sshd.configure_sshd(sshd.Sshd(paths, "/etc/ssh", without_sshd, LOG), NO_PASSWORDS)

    assert not (tmp_path / "etc/ssh/sshd_config").exists()
    assert (tmp_path / "usr/etc/ssh/sshd_config").read_text() == INCLUDE
    assert (tmp_path / "etc/ssh/sshd_config.d/10-waagent.conf").exists()


def sshd_that_answers(paths: Paths, refuses: str = "") -> sshd.Run:
    """A stand-in for sshd: the first value counts; it refuses a configuration that has ``refuses``."""

    def run(argv: list[str], **options: object) -> Finished:
        main = Path(argv[argv.index("-f") + 1])
        lines = [
            line
            for line in sshd_settings.read_settings(paths, main, "/etc/ssh")
            if isinstance(line, sshd_settings.Setting)
        ]
        if refuses and any(line.option == refuses for line in lines):
            raise ToolError("sshd ended with status 255", f"{main}: Bad option {refuses}", "look")
        values = {
            "passwordauthentication": "yes",
            "kbdinteractiveauthentication": "no",
            "clientaliveinterval": "0",
        }
        first: dict[str, str] = {}
        for line in lines:
            if not line.is_in_match or "-C" in argv:
                first.setdefault(line.option, line.value)
        said = "".join(f"{name} {value}\n" for name, value in {**values, **first}.items())
        return Finished(tuple(argv), 0, said.encode(), b"", False, 0.0)

    return run


def an_sshd(paths: Paths, refuses: str = "") -> sshd.Sshd:
    return sshd.Sshd(paths, "/etc/ssh", sshd_that_answers(paths, refuses), LOG, "harbor")


def test_what_is_in_force_already_is_not_written(tmp_path: Path) -> None:
    text = INCLUDE + "PasswordAuthentication no\nClientAliveInterval 180\n"
    paths = a_root(tmp_path, {"sshd_config": text})

    assert sshd.configure_sshd(an_sshd(paths), NO_PASSWORDS) == ""
    assert [path.name for path in (tmp_path / "etc/ssh").iterdir()] == ["sshd_config"]


def test_a_broken_configuration_is_told_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = a_root(tmp_path, {"sshd_config": "Bogus yes\n"})

    assert sshd.configure_sshd(an_sshd(paths, "bogus"), NO_PASSWORDS) == ""
    assert (tmp_path / "etc/ssh/sshd_config").read_text() == "Bogus yes\n"
    assert "it is left alone" in caplog.text and "Bad option" in caplog.text


def test_what_wins_over_us_is_named_and_nothing_is_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = INCLUDE + "Match User harbor\n  PasswordAuthentication maybe\n"
    paths = a_root(tmp_path, {"sshd_config": "PasswordAuthentication yes\n" + text})
    caplog.set_level(logging.INFO)

    sshd.configure_sshd(
        sshd.Sshd(paths, "/etc/ssh", sshd_that_answers(paths), LOG, may_edit_main=False),
        NO_PASSWORDS,
    )

    assert "PasswordAuthentication no is not honoured, sshd says yes" in caplog.text
    assert f"{tmp_path}/etc/ssh/sshd_config:4: change that line" in caplog.text
    assert "sshd is configured" not in caplog.text


def test_an_option_that_sshd_does_not_know_is_left_out(tmp_path: Path) -> None:
    paths = a_root(tmp_path, {"sshd_config": "KbdX yes\n"})
    wanted = {**NO_PASSWORDS, "challengeresponseauthentication": "no"}

    sshd.configure_sshd(an_sshd(paths, "kbdinteractiveauthentication"), wanted)

    text = (tmp_path / "etc/ssh/sshd_config").read_text()
    assert "PasswordAuthentication no" in text and "KbdInteractive" not in text


@pytest.mark.parametrize(
    ("file", "later"),
    [
        ("sshd_config", INCLUDE + "PasswordAuthentication yes\n"),
        ("sshd_config.d/50-cloud-init.conf", "PasswordAuthentication yes\n"),
        ("sshd_config", "Port 22\n" + INCLUDE + "passwordauthentication=yes\n"),
    ],
)
def test_what_others_set_later_counts(tmp_path: Path, file: str, later: str) -> None:
    paths = a_root(tmp_path, {"sshd_config": INCLUDE, "sshd_config.d/50-x.conf": "X11UseLocal no"})
    sshd.configure_sshd(an_sshd(paths), NO_PASSWORDS)
    assert sshd_later.make_way(paths) == []

    (tmp_path / "etc/ssh" / file).write_text(later)

    assert sshd_later.make_way(paths) == ["PasswordAuthentication"]
    assert sshd_later.make_way(paths) == []
    ours = (tmp_path / "etc/ssh/sshd_config.d/10-waagent.conf").read_text()
    assert ours == f"{BEGIN}\nClientAliveInterval 180\n"


def test_in_the_main_file_too_others_count_and_the_rest_stays(tmp_path: Path) -> None:
    paths = a_root(tmp_path, {"sshd_config": "Port 22\n"})
    sshd.configure_sshd(an_sshd(paths), NO_PASSWORDS)
    main = tmp_path / "etc/ssh/sshd_config"

    main.write_text(main.read_text() + "PasswordAuthentication yes\nClientAliveInterval 9\n")

    assert sshd_later.make_way(paths) == ["ClientAliveInterval", "PasswordAuthentication"]
    assert main.read_text() == "Port 22\nPasswordAuthentication yes\nClientAliveInterval 9\n"
    assert END not in main.read_text()


# host keys


def renew(folder: Path, kind: str) -> bool:
    making = host_keys.Making(folder, kind)
    end = time.monotonic() + 60
    while not making.is_over():
        assert time.monotonic() < end
        time.sleep(0.01)
    return making.take_over(LOG)


def test_a_type_that_cannot_be_made_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert renew(tmp_path, "nosuch")

    assert (tmp_path / "ssh_host_ed25519_key").exists()
    assert "no SSH host key of type nosuch" in caplog.text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_fingerprint_is_the_one_ssh_keygen_prints(tmp_path: Path, kind: str) -> None:
    assert renew(tmp_path, kind)
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
    renew(tmp_path, "auto")
    old = (tmp_path / "ssh_host_ed25519_key").read_bytes()

    renew(tmp_path, "ed25519")

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
    ]
    assert (tmp_path / "ssh_host_ed25519_key").read_bytes() != old
    assert (tmp_path / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600


def test_without_the_wanted_type_another_one_speaks_for_the_machine(tmp_path: Path) -> None:
    renew(tmp_path, "ed25519")

    found = host_keys.fingerprint_of(tmp_path, "rsa")

    assert found is not None and found.file.endswith("ssh_host_ed25519_key.pub")


@given(st.binary(max_size=80))
def test_any_public_key_file_is_read_without_an_error(data: bytes) -> None:
    host_keys.public_blob(data)
