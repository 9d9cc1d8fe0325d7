"""Claims about what provisioning decides, and about the table of distributions."""

from __future__ import annotations

import dataclasses
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
    with pytest.raises(Refused) as refusal:
        plan.who_provisions(Options(agent="waagent"), True)

    assert str(refusal.value) == (
        "cloud-init is enabled and would provision too: Provisioning.Agent=waagent: disable"
        " cloud-init, or set Provisioning.Agent=auto"
    )


def test_who_provisions_are_three_different_words() -> None:
    assert (OURSELVES, CLOUD_INIT, NOBODY) == ("ourselves", "cloud-init", "nobody")


def test_a_record_of_options_is_that_of_a_machine_that_says_nothing() -> None:
    assert Options() == Options(**{field: default for field, default, *_ in OPTIONS.values()})
    for record in (Options(), PasswdEntry("a", 1, 1, "/")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.name = ""  # type: ignore[union-attr]  # that it is refused is the claim


@pytest.mark.parametrize(
    ("name", "set_as"),
    [
        *((name, name) for name in ("tern-07", "a", "Tern.Example.org", "x" * 63, "1st")),
        *((name, name) for name in ("20231", "web.01", "10.0.0.4", "x" * 64, "web-", "a.-b")),
        ("web.example.org.", "web.example.org"),
        ("y" * 64 + ".", "y" * 64),
    ],
)
def test_host_names_that_the_platform_allows_pass(name: str, set_as: str) -> None:
    assert plan.host_name_of(name) == set_as


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "a..b", "a_b", "a b", "a;reboot", "ü", "a\n", "$(id)", "-a", "x" * 65],
)
def test_other_host_names_are_refused_and_never_cut(name: str) -> None:
    with pytest.raises(Refused, match="host name has"):
        plan.host_name_of(name)


def test_a_host_name_that_is_too_long_is_shown_by_its_first_80_characters() -> None:
    with pytest.raises(Refused) as refused:
        plan.host_name_of("x" * 100)

    assert refused.value.where == repr("x" * 80)


ALLOWED = Options(allow_system_user=True)


@pytest.mark.parametrize(
    ("name", "uid", "minimum", "options", "says"),
    [
        ("daemon", 1, 1000, Options(), "user name 'daemon' is a system user (uid 1): "),
        ("daemon", 1, 1000, ALLOWED, ""),
        ("toor", 0, 1000, Options(), "user name 'toor' is the superuser (uid 0): "),
        ("toor", 0, 1000, ALLOWED, ""),
        ("harbor", None, 1000, Options(), ""),
        ("harbor", 1000, 1000, Options(), ""),
        ("harbor", 999, 1000, Options(), "user name 'harbor' is a system user (uid 999): "),
        ("harbor", 999, 5000, Options(), "user name 'harbor' is a system user (uid 999): "),
        ("harbor", 1000, 5000, Options(), ""),
        ("harbor", 500, 500, Options(), ""),
        ("harbor", 499, 500, Options(), "user name 'harbor' is a system user (uid 499): "),
        ("harbor", 64510, 1000, ALLOWED, "user name 'harbor' is an account of this agent (uid"),
        ("harbor", 64511, 1000, Options(), "user name 'harbor' is an account of this agent (uid"),
        ("harbor", 65534, 1000, ALLOWED, "user name 'harbor' is an account of this agent (uid"),
        ("harbor", 64512, 1000, Options(), ""),
    ],
)
def test_accounts_of_the_system_and_of_this_agent_are_refused_before_any_change(
    name: str, uid: int | None, minimum: int, options: Options, says: str
) -> None:
    present = None if uid is None else PasswdEntry(name, uid, uid, "/")

    if not says:
        plan.refuse_system_user(name, present, minimum, DEBIAN, options)
        return
    with pytest.raises(Refused) as refusal:
        plan.refuse_system_user(name, present, minimum, DEBIAN, options)

    text = str(refusal.value)
    assert text.startswith(says) and "boot DVD" in text
    remedy = "create the VM with another user name"
    if "system user" in says:
        remedy += ", or set Provisioning.AllowResetSysUser=y"
    assert text.endswith(f": {remedy}")


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
        ("", 1000),
        ("UID_MIN\nUID_MIN 700\n", 700),
        ("UID_MIN 600 # people\n", 600),
        ("OTHER 1\n UID_MIN 5\n", 1000),
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
    ("disable", "has_password", "keys", "wanted"),
    [
        (None, True, 1, False),
        (None, True, 0, None),
        (True, True, 0, False),
        (False, False, 1, None),
        (False, True, 0, True),
        (False, True, 2, True),
        (True, False, 0, False),
        (None, False, 3, False),
        (None, False, 0, None),
    ],
)
def test_password_login_spares_hardened_images(
    disable: bool | None, has_password: bool, keys: int, wanted: bool | None
) -> None:
    assert plan.wants_password_login(disable, has_password, keys) is wanted


OPTIONS = {
    # option -> field, its default, another value and what becomes of it
    "Provisioning.Agent": ("agent", "auto", " Cloud-Init ", "cloud-init"),
    "Provisioning.Enabled": ("enabled", True, False, False),
    "Provisioning.DeleteRootPassword": ("delete_root_password", False, True, True),
    "Provisioning.RegenerateSshHostKeyPair": ("regenerate_host_keys", True, False, False),
    "Provisioning.SshHostKeyPairType": ("host_key_type", "rsa", "ED25519", "ed25519"),
    "Provisioning.DecodeCustomData": ("decode_custom_data", False, True, True),
    "Provisioning.ExecuteCustomData": ("execute_custom_data", False, True, True),
    "Provisioning.PasswordCryptId": ("crypt_id", "6", "5", "5"),
    "Provisioning.PasswordCryptSaltLength": ("salt_length", 10, 16, 16),
    "Provisioning.AllowResetSysUser": ("allow_system_user", False, True, True),
    "DVD.MountPoint": ("mount_point", "/mnt/cdrom/secure", "/mnt/Dvd", "/mnt/Dvd"),
    "OS.SshDir": ("ssh_folder", "/etc/ssh", " /usr/local/etc/ssh", "/usr/local/etc/ssh"),
    "OS.HomeDir": ("home_base", "/home", "/Users", "/Users"),
    "OS.PasswordPath": ("shadow", "", "/etc/shadow", "/etc/shadow"),
    "OS.SudoersDir": ("sudoers_folder", "", "/etc/sudoers.d", "/etc/sudoers.d"),
    "OS.SshClientAliveInterval": ("client_alive_s", 180, " 120 ", 120),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_is_read_and_has_its_default(option: str) -> None:
    field, default, given_value, wanted = OPTIONS[option]
    others = {name for name, *_ in OPTIONS.values()} - {field}

    options, defaults = plan.read_options({option: given_value}), plan.read_options({})

    assert defaults == Options()
    assert getattr(defaults, field) == default and getattr(options, field) == wanted
    assert all(getattr(options, name) == getattr(defaults, name) for name in others)


@pytest.mark.parametrize("odd", [None, "", "  ", "None", [], 1.5, "what ever"])
def test_odd_option_values_are_the_defaults(odd: object) -> None:
    words = {option for option, (_, default, *_) in OPTIONS.items() if isinstance(default, str)}
    skipped = words if odd == "what ever" else set()

    options = plan.read_options({option: odd for option in OPTIONS if option not in skipped})

    assert options == Options()


@pytest.mark.parametrize("value", [True, False, "1e3", "-5", "0x10"])
def test_a_number_is_made_of_digits(value: object) -> None:
    assert plan.read_options({"OS.SshClientAliveInterval": value}).client_alive_s == 180


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
