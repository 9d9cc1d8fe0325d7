"""Claims about the user names of the boot DVD: which of them become an account."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.supervisor.roster import BUS_GROUP, ROSTER
from waagent.workers.provisioner import plan, user_names
from waagent.workers.provisioner.provisioning_error import Refused
from waagent.workers.provisioner.user_names import check_user_name


@pytest.mark.parametrize(
    "name",
    ["a", "_", "harbor", "Harbor", "aLL", "All", "_ALL", "x" * 32, "al.ice", "a-b_c.d", "core"]
    + ["azureuser", "waagent2", "mywaagent", "nobody1", "roots", "sudoer", "A.B", "A-B", "admin"]
    + ["Default", "Defaultss", "User_Aliases", "MyUser_Alias", "aDefaults"],
)
def test_names_of_people_pass(name: str) -> None:
    assert check_user_name(name) == name


REFUSED = {
    # the language that would read the name as something else -> such names
    "sudoers, everybody and aliases": ("ALL", "A", "OPS", "OPS_2", "Z9", "ROOT", "NOPASSWD"),
    "sudoers, lines of another kind": (
        "Defaults",
        "User_Alias",
        "Runas_Alias",
        "Host_Alias",
        "Cmnd_Alias",
        "Cmd_Alias",
    ),
    "sudoers, first characters": ("%sudo", "%#0", "#1000", "#include", "+net", "!a", "@include"),
    "sudoers, characters": ("a,b", "a=b", "a\\b", "ALL,x", '"a"', "a (ALL)", "a>b"),
    "passwd and shadow": ("a:b", "a\n", "a\nroot::0:0::/:", "", "a\r", "a\0b", "x" * 33),
    "arguments": ("-rf", "--uid=0", "-"),
    "paths": ("a/b", "/", "..", ".", ".ssh", "../root"),
    "shells": (
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "a&b",
        "a*",
        "~",
        "a b",
        "a'b",
        "$HOME",
        "a>b",
        "a{b",
    ),
    "YAML and JSON": ("[a]", "{a}", "a: b", "&a", "*a", "? a", "|", "> a", "- a", "1e3", "0x1"),
    "people": ("ü", "а", "١", "1a", "a\u200b", "a\u202eb"),
    "our own accounts": ("waagent", "waagent-probe", "waagent-bus", "Waagent", "WAAGENT-bus"),
    "nobody": ("nobody", "nogroup", "nfsnobody", "Nobody"),
    "the system": (
        *("root", "Root", "daemon", "bin", "sshd", "systemd-network", "sudo", "www-data"),
        "systemd-bus-proxy",
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, id=f"{why}: {name!r}") for why in REFUSED for name in REFUSED[why]]
)
def test_what_a_language_reads_as_something_else_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_user_name(name)

    text = str(refusal.value)
    assert repr(name[:80]) in text and "boot DVD" in text and "create the VM with another" in text
    assert "\n" not in text


@pytest.mark.parametrize("why", [why for why in REFUSED if why != "the system"])
def test_no_option_lets_such_a_name_pass(why: str) -> None:
    for name in REFUSED[why]:
        with pytest.raises(Refused):
            check_user_name(name, allow_system_user=True)


def test_an_option_lets_accounts_of_the_system_pass() -> None:
    assert check_user_name("daemon", allow_system_user=True) == "daemon"


def test_the_reason_says_what_the_name_would_be() -> None:
    said = {}
    for name in ("ALL", "OPS", "Defaults", "Host_Alias", "waagent", "nobody", "bin", "a b"):
        with pytest.raises(Refused) as refusal:
            check_user_name(name)
        said[name] = str(refusal.value)

    where = "UserName in ovf-env.xml on the boot DVD: create the VM with another user name"
    assert said == {
        "ALL": f"user name 'ALL' means every user in sudoers: {where}",
        "OPS": f"user name 'OPS' is read as an alias in sudoers: {where}",
        "Defaults": f"user name 'Defaults' begins a line of settings in sudoers: {where}",
        "Host_Alias": f"user name 'Host_Alias' begins an alias in sudoers: {where}",
        "waagent": f"user name 'waagent' belongs to this agent: {where}",
        "nobody": (
            "user name 'nobody' is whoever has no account: programs that strangers reach run as"
            f" it: {where}"
        ),
        "bin": f"user name 'bin' is an account of the system: {where}",
        "a b": (
            f"user name 'a b' is not a portable one: {where}: letters, digits, `_`, `.`, `-`, a"
            " letter or `_` first, at most 32"
        ),
    }


def test_a_long_name_is_cut_in_the_message() -> None:
    with pytest.raises(Refused) as refusal:
        check_user_name("b" * 5000)

    assert repr("b" * 80) in str(refusal.value) and len(str(refusal.value)) < 400


def test_every_account_of_this_agent_is_refused() -> None:
    ours = {row.account for row in ROSTER if row.account.number} | {BUS_GROUP}

    for account in ours:
        with pytest.raises(Refused):
            check_user_name(account.name, allow_system_user=True)
    assert {row.account.number for row in ROSTER if row.account.number} <= plan.OWN_UIDS


@given(st.text(max_size=40))
def test_what_passes_is_one_field_of_one_line_of_sudoers(name: str) -> None:
    try:
        check_user_name(name)
    except Refused:
        return

    line = plan.sudoers_text("", name, has_password=False)
    assert line == f"{name} ALL=(ALL) NOPASSWD: ALL\n"
    assert line.count("\n") == 1 and len(line.split()) == 4
    assert any(character.islower() or character in "_.-" for character in name)
    assert not (set(name) & set("%#+!@,=\\\":/ ()$;|&*?~<>{}[]'`"))
    assert user_names.WHERE
