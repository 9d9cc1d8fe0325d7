"""Claims about what provisioning does to files, below a root of the test's own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from pathlib import Path

import pytest

from waagent.distro import host_name, our_python, root_password
from waagent.distro.distributions import FAMILIES
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolError, ToolNotFound, run
from waagent.lab.dvd import write_dvd
from waagent.lab.ovf import Order, ovf_env
from waagent.protocol.base.secret import Secret
from waagent.protocol.ovf import OvfError
from waagent.workers.provisioner import dvd, key_writer, passwords, ssh_keys, sudo, users
from waagent.workers.provisioner.plan import Options, PasswdEntry
from waagent.workers.provisioner.provisioning_error import NoRequest

LOG = logging.getLogger("test")
DEBIAN = FAMILIES["debian"]
NOBODY_UID = 65534
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0mZ0 a@b"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")


def write_key(home: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    told = {
        "uid": NOBODY_UID,
        "gid": NOBODY_UID,
        "base": str(home),
        "folders": [".ssh"],
        "name": "authorized_keys",
        "lines": lines,
        "mode": 0o600,
        "folder_mode": 0o700,
    }
    argv = our_python.argv(key_writer.__name__, title="key writer")
    return subprocess.run(argv, input=json.dumps(told), capture_output=True, text=True, check=False)


@pytest.fixture
def home(tmp_path: Path, readable_python: None) -> Path:
    """A home of uid 65534 that this uid can reach."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    os.chown(made, NOBODY_UID, NOBODY_UID)
    return made


# discs


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (
            ["sr10", "sr1", "sda", "cdrom", "vdb", "vda", "hdc", "cd0", "srx", "sr1p", "loop0"],
            ("sr1", "sr10", "cdrom", "cd0", "hdc", "vdb"),
        ),
        ([], ()),
    ],
)
def test_candidates_have_one_order_and_whole_names(
    names: list[str], order: tuple[str, ...]
) -> None:
    assert dvd.order_candidates(names) == order


def a_root_with_discs(root: Path, **variants: str) -> Paths:
    (root / "dev").mkdir()
    for name, variant in variants.items():
        write_dvd(root / "dev" / name, ovf_env(Order(public_keys=(KEY,))), variant)
    return Paths(root)


def test_the_first_disc_with_a_request_wins_and_others_are_passed_over(tmp_path: Path) -> None:
    paths = a_root_with_discs(tmp_path, sr0="without_ovf", sr1="good", cd0="empty")
    (tmp_path / "dev/cdrom").symlink_to("sr0")

    disc = dvd.find_disc(paths, str(tmp_path / "mnt"), run, LOG)

    assert disc.device == str(tmp_path / "dev/sr1")
    assert disc.request.public_keys[0].value == KEY


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("without_ovf", "has no ovf-env.xml"),
        ("damaged", "cannot be read"),
        ("empty", "cannot be read"),
    ],
)
def test_a_useless_disc_is_named_with_its_reason(tmp_path: Path, variant: str, says: str) -> None:
    paths = a_root_with_discs(tmp_path, sr0=variant)

    with pytest.raises(NoRequest, match=says):
        dvd.find_disc(paths, str(tmp_path / "mnt"), run, LOG)


@pytest.mark.parametrize("variant", ["udf_only", "iso_only"])
def test_a_disc_of_one_form_alone_is_read(tmp_path: Path, variant: str) -> None:
    paths = a_root_with_discs(tmp_path, sr0=variant)

    assert dvd.find_disc(paths, str(tmp_path / "mnt"), run, LOG).request.user_name == "azureuser"


def test_no_drive_at_all_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoRequest, match="No DVD device detected, unable to provision"):
        dvd.find_disc(Paths(tmp_path), "/mnt", run, LOG)


def test_a_broken_document_is_told_when_no_disc_is_good(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    write_dvd(tmp_path / "dev/sr0", b"<Environment>")

    with pytest.raises(OvfError, match="sr0:ovf-env.xml"):
        dvd.find_disc(Paths(tmp_path), "/mnt", run, LOG)


# keys


@needs_root
def test_keys_are_added_once_as_the_user_with_its_modes(home: Path) -> None:
    first = write_key(home, [KEY])
    again = write_key(home, [KEY, "  " + KEY.replace(" ", "  ")])

    file = home / ".ssh/authorized_keys"
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert file.read_text().splitlines() == [KEY]
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (NOBODY_UID, 0o600)
    assert (file.parent.stat().st_uid, file.parent.stat().st_mode & 0o777) == (NOBODY_UID, 0o700)


@needs_root
def test_keys_of_the_image_stay_and_a_loose_folder_is_closed(home: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh/authorized_keys").write_text("ssh-rsa old\n\nssh-rsa old\n")
    for path in (home / ".ssh", home / ".ssh/authorized_keys"):
        os.chown(path, NOBODY_UID, NOBODY_UID)
    (home / ".ssh").chmod(0o777)

    write_key(home, [KEY])

    assert (home / ".ssh/authorized_keys").read_text().splitlines() == ["ssh-rsa old", KEY]
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o755


@needs_root
@pytest.mark.parametrize("trap", ["folder", "file", "fifo"])
def test_a_hostile_home_leads_nowhere(home: Path, tmp_path: Path, trap: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "authorized_keys").write_text("precious")
    if trap == "folder":
        (home / ".ssh").symlink_to(outside)
    else:
        (home / ".ssh").mkdir()
        os.chown(home / ".ssh", NOBODY_UID, NOBODY_UID)
    if trap == "file":
        (home / ".ssh/authorized_keys").symlink_to(outside / "authorized_keys")
    if trap == "fifo":
        os.mkfifo(home / ".ssh/authorized_keys")

    result = write_key(home, [KEY])

    assert result.returncode == 1 and result.stderr
    assert (outside / "authorized_keys").read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "base", "folders", "name"),
    [
        ("$HOME/harbor/.ssh/authorized_keys", "/home/harbor", (".ssh",), "authorized_keys"),
        ("/home/harbor/.ssh/authorized_keys", "/srv/people/harbor", (".ssh",), "authorized_keys"),
        ("", "/home/harbor", (".ssh",), "authorized_keys"),
        ("/home/harbor/x/../.ssh/k", "/home/harbor", (".ssh",), "k"),
        ("/etc/ssh/keys/harbor", "/", ("etc", "ssh", "keys"), "harbor"),
    ],
)
def test_a_path_leads_below_the_real_home(
    path: str, base: str, folders: tuple[str, ...], name: str
) -> None:
    account = PasswdEntry("harbor", 1000, 1000, base if base != "/" else "/home/harbor")

    target = ssh_keys.target_of(path, "/home", account)

    assert (target.base, target.folders, target.name) == (base, folders, name)


@pytest.mark.parametrize(
    "path", ["relative/x", "/home/harbor/.ssh/", "/", "$HOME", "/home/harbor/a\0b"]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    if path == "$HOME":
        assert (
            ssh_keys.target_of(
                path, "/home", PasswdEntry("harbor", 1, 1, "/home/harbor")
            ).is_the_users
            is False
        )
        return
    with pytest.raises(ssh_keys.DeployError, match="0x03"):
        ssh_keys.target_of(path, "/home", PasswdEntry("harbor", 1, 1, "/home/harbor"))


# passwords and accounts


@pytest.mark.parametrize(
    ("crypt_id", "start", "length"), [("6", "$6$", 10), ("5", "$5$", 16), ("1", "$1$", 8)]
)
def test_a_hash_has_the_wanted_scheme_and_salt(crypt_id: str, start: str, length: int) -> None:
    hashed = passwords.hash_password(Secret("p&ss <ü>"), crypt_id, 16 if crypt_id != "6" else 10)

    assert hashed.startswith(start)
    assert len(hashed.split("$")[2]) == length
    assert "p&ss" not in hashed


@pytest.mark.parametrize("length", [-1, 0, 17, 99])
def test_a_useless_salt_length_gives_a_good_salt(length: int) -> None:
    assert len(passwords.salt_for("6", length)) == 10


def test_bcrypt_is_made_by_the_system_or_refused() -> None:
    try:
        hashed = passwords.hash_password(Secret("x"), "2b", 10)
    except passwords.CannotHash:
        return
    assert hashed.startswith("$2b$10$") and len(hashed) == 60


@pytest.mark.parametrize("crypt_id", ["y", "", "7", "$6$", "2x"])
def test_an_unknown_scheme_is_refused_by_name(crypt_id: str) -> None:
    with pytest.raises(passwords.CannotHash, match="PasswordCryptId"):
        passwords.hash_password(Secret("x"), crypt_id, 10)


def test_the_root_password_is_locked_never_emptied(tmp_path: Path) -> None:
    shadow = tmp_path / "etc/shadow"
    shadow.parent.mkdir()
    shadow.write_text("daemon:*:1::::::\nroot:$6$x$y:19000:0:99999:7:::\n")
    shadow.chmod(0o640)

    for _ in range(2):
        root_password.lock_root_password(Paths(tmp_path), DEBIAN, "", run)

    assert shadow.read_text() == "root:*LOCK*:14600::::::\ndaemon:*:1::::::\n"
    assert shadow.stat().st_mode & 0o777 == 0o640


def test_an_account_is_read_from_passwd(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("broken\nharbor:x:1000:1001::/srv/harbor:/bin/sh\n")

    assert users.find_account(Paths(tmp_path), "harbor") == PasswdEntry(
        "harbor", 1000, 1001, "/srv/harbor"
    )
    assert users.find_account(Paths(tmp_path), "root") is None


# sudo and host name


def refusing_visudo(argv: list[str], **options: object) -> Finished:
    raise ToolError("visudo ended with status 1", "'syntax error'", "look")


def no_visudo(argv: list[str], **options: object) -> Finished:
    raise ToolNotFound("tool is missing", argv[0], "install it")


def test_sudoers_is_replaced_whole_and_keeps_other_users(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    for name in ("al", "alice", "al"):
        file = sudo.allow_sudo(paths, DEBIAN, Options(), no_visudo, name, has_password=False)

    assert file.read_text() == "alice ALL=(ALL) NOPASSWD: ALL\nal ALL=(ALL) NOPASSWD: ALL\n"
    assert file.stat().st_mode & 0o777 == 0o440
    assert os.listdir(file.parent) == ["waagent"]


def test_what_visudo_refuses_never_counts(tmp_path: Path) -> None:
    with pytest.raises(sudo.SudoError, match="0x08"):
        sudo.allow_sudo(
            Paths(tmp_path), DEBIAN, Options(), refusing_visudo, "harbor", has_password=False
        )

    assert os.listdir(tmp_path / "etc/sudoers.d") == []


def test_a_missing_folder_is_included_once(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/sudoers").write_text("root ALL=(ALL) ALL\n")

    sudo.allow_sudo(Paths(tmp_path), DEBIAN, Options(), no_visudo, "harbor", has_password=True)

    assert f"#includedir {tmp_path}/etc/sudoers.d\n" in (tmp_path / "etc/sudoers").read_text()


@pytest.mark.parametrize(
    ("family", "file", "content"),
    [
        ("debian", "etc/hostname", "tern-07\n"),
        ("suse11", "etc/HOSTNAME", "tern-07\n"),
        ("openbsd", "etc/myname", "tern-07\n"),
        ("redhat6", "etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=tern-07\n"),
        ("freebsd", "etc/rc.conf", 'a="b"\nhostname="tern-07"\nsshd_enable="YES"\n'),
    ],
)
def test_the_host_name_stands_where_the_distribution_reads_it(
    tmp_path: Path, family: str, file: str, content: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    if family == "redhat6":
        (tmp_path / file).write_text("NETWORKING=yes\nHOSTNAME=old\n")
    if family == "freebsd":
        (tmp_path / file).write_text('a="b"\nhostname="old"\nsshd_enable="YES"\n')

    for _ in range(2):
        host_name.set_host_name(Paths(tmp_path), FAMILIES[family], run, "tern-07")

    assert (tmp_path / file).read_text() == content
