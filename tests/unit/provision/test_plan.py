"""Claims about what provisioning decides, and about the table of distributions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.distributions import FAMILIES, choose_family, family_of, release_in
from waagent.distro.os_release import parse_os_release
from waagent.distro.paths import Paths
from waagent.workers.provisioner import plan
from waagent.workers.provisioner.plan import CLOUD_INIT, NOBODY, OURSELVES, Options, PasswdEntry
from waagent.workers.provisioner.provisioning_error import Refused

DEBIAN = FAMILIES["debian"]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0 harbor@tern"


@pytest.mark.parametrize(
    ("agent", "enabled", "cloud_init", "who"),
    [
        ("auto", True, False, OURSELVES),
        ("auto", True, True, CLOUD_INIT),
        ("auto", False, False, NOBODY),
        ("auto", False, True, CLOUD_INIT),
        ("waagent", True, False, OURSELVES),
        ("waagent", False, False, OURSELVES),
        ("disabled", True, True, NOBODY),
        ("cloud-init", True, False, CLOUD_INIT),
    ],
)
def test_who_provisions(agent: str, enabled: bool, cloud_init: bool, who: str) -> None:
    assert plan.who_provisions(Options(agent=agent, enabled=enabled), cloud_init) == who


def test_two_never_provision_at_once() -> None:
    with pytest.raises(Refused, match="cloud-init is enabled"):
        plan.who_provisions(Options(agent="waagent"), True)


@pytest.mark.parametrize("name", ["tern-07", "a", "Tern.Example.org", "x" * 63, "1st", "10-0-0-4"])
def test_host_names_of_rfc_1123_pass(name: str) -> None:
    assert plan.check_host_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        "a-",
        "a..b",
        "a_b",
        "x" * 64,
        "a b",
        "a;reboot",
        "ü",
        "a\n",
        ".",
        "10.0.0.4",
        "$(id)",
        "a.b." + "c" * 61,
    ],
)
def test_other_host_names_are_refused_and_never_cut(name: str) -> None:
    with pytest.raises(Refused):
        plan.check_host_name(name)


@pytest.mark.parametrize(
    ("name", "present", "options", "refused"),
    [
        ("daemon", PasswdEntry("daemon", 1, 1, "/"), Options(), True),
        ("toor", PasswdEntry("toor", 0, 0, "/root"), Options(), True),
        ("harbor", None, Options(), False),
        ("harbor", PasswdEntry("harbor", 1000, 1000, "/home/harbor"), Options(), False),
        ("daemon", PasswdEntry("daemon", 1, 1, "/"), Options(allow_system_user=True), False),
    ],
)
def test_system_users_are_refused_before_any_change(
    name: str, present: PasswdEntry | None, options: Options, refused: bool
) -> None:
    try:
        plan.refuse_system_user(name, present, 1000, DEBIAN, options)
        assert not refused
    except Refused:
        assert refused


def test_core_is_a_person_on_coreos_only() -> None:
    core = PasswdEntry("core", 500, 500, "/home/core")

    plan.refuse_system_user("core", core, 1000, FAMILIES["coreos"], Options())
    with pytest.raises(Refused):
        plan.refuse_system_user("core", core, 1000, DEBIAN, Options())


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#UID_MIN 5\nUID_MIN\t\t 2000\nUID_MIN 3000\n", 2000),
        (None, 1000),
        ("UID_MIN many\n", 1000),
        ("UID_MINIMUM 5\n", 1000),
    ],
)
def test_uid_min_is_the_first_active_line(text: str | None, number: int) -> None:
    assert plan.uid_minimum(text, DEBIAN) == number


def test_sudoers_has_one_line_for_each_user() -> None:
    first = plan.sudoers_text("", "al", has_password=True)
    both = plan.sudoers_text(first, "alice", has_password=False)
    again = plan.sudoers_text(both, "al", has_password=False)

    assert first == "al ALL=(ALL) ALL\n"
    assert again == "alice ALL=(ALL) NOPASSWD: ALL\nal ALL=(ALL) NOPASSWD: ALL\n"


@pytest.mark.parametrize(
    "line",
    [
        KEY,
        "ecdsa-sha2-nistp256 " + "A" * 40,
        "sk-ssh-ed25519@openssh.com " + "A" * 40 + " x",
        'no-pty,command="date" ' + KEY,
    ],
)
def test_all_key_types_of_openssh_pass(line: str) -> None:
    assert plan.check_public_key(f" {line}\r\n") == line


@pytest.mark.parametrize(
    "line", ["", "ssh-rsa", "ssh-rsa !!", "-----BEGIN PUBLIC KEY-----", "rm -rf /"]
)
def test_what_is_no_key_is_refused(line: str) -> None:
    with pytest.raises(Refused):
        plan.check_public_key(line)


@pytest.mark.parametrize(
    ("disable", "has_password", "keys", "wanted"),
    [
        (None, True, 1, False),
        (None, True, 0, None),
        (True, True, 0, False),
        (False, False, 1, None),
        (False, True, 0, True),
    ],
)
def test_password_login_spares_hardened_images(
    disable: bool | None, has_password: bool, keys: int, wanted: bool | None
) -> None:
    assert plan.wants_password_login(disable, has_password, keys) is wanted


def test_odd_option_values_are_the_defaults() -> None:
    values = {
        "Provisioning.Enabled": "what",
        "OS.SshDir": None,
        "OS.SshClientAliveInterval": "120",
        "OS.HomeDir": 7,
    }

    options = plan.read_options(values)

    assert (options.enabled, options.ssh_folder, options.client_alive_s, options.home_base) == (
        True,
        "/etc/ssh",
        120,
        "/home",
    )


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian"),
        ('ID="Ubuntu"\n', "ubuntu"),
        ('ID=rhel\nVERSION_ID="6.10"\n', "redhat6"),
        ('ID="rocky"\nVERSION_ID="9.3"\n', "redhat"),
        ("ID=flatcar\nID_LIKE=coreos\n", "coreos"),
        ('ID=pop\nID_LIKE="ubuntu debian"', "ubuntu"),
        ('ID="sles"\nVERSION_ID="11.4"\n', "suse11"),
        ("ID=plan9\n", "default"),
        ("", "default"),
    ],
)
def test_a_release_finds_its_row(text: str, row: str) -> None:
    assert choose_family(release_in(parse_os_release(text))).name == row


def test_files_of_vendors_override_os_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=centos\nVERSION_ID=7\n")
    (tmp_path / "etc/photon-release").write_text("")

    assert family_of(Paths(tmp_path)).name == "photonos"


@given(st.text(max_size=200))
def test_any_os_release_gives_a_row(text: str) -> None:
    assert choose_family(release_in(parse_os_release(text))).name in FAMILIES
