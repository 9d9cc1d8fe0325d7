"""Claims about what provisioning does on each family: a root tree with its os-release and files, and
the exact commands and contents that result. Tools are stand-ins that record what they were given.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from waagent.distro import dhcp_clients, host_name, root_password, sshd_later
from waagent.distro.distributions import describe_unknown, family_of
from waagent.distro.paths import Paths
from waagent.distro.run import Finished, ToolNotFound
from waagent.protocol.base.secret import Secret
from waagent.workers.provisioner import sshd, sudo, users
from waagent.workers.provisioner.plan import Options

LOG = logging.getLogger("test")
PASSWD = "root:x:0:0::/root:/bin/sh\n"
SYSTEMD = "run/systemd/system/x"
CHPASSWD = "chpasswd -e < harbor:HASH"
USERADD = "useradd -m harbor"
SUDO = "etc/sudoers.d/waagent: harbor ALL=(ALL) ALL"

# row, os-release or a file that names the system, more files -> commands, files that result
CASES: list[tuple[str, str, tuple[str, ...], list[str], list[str]]] = [
    (
        "debian",
        'ID=debian\nVERSION_ID="12"',
        (SYSTEMD, "lib/systemd/system/ssh.service"),
        [USERADD, CHPASSWD, "systemctl try-reload-or-restart ssh"],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "ubuntu",
        'ID=ubuntu\nVERSION_ID="12.04"',
        (),
        [USERADD, CHPASSWD],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "ubuntu",
        'ID=ubuntu\nVERSION_ID="24.10"',
        (SYSTEMD,),
        [USERADD, CHPASSWD, "systemctl try-reload-or-restart ssh"],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "redhat6",
        "redhat-release: CentOS release 6.10 (Final)",
        (),
        [USERADD, CHPASSWD, "/sbin/service sshd condrestart"],
        ["etc/sysconfig/network: HOSTNAME=tern-07", SUDO],
    ),
    *(
        (
            "redhat",
            f'ID={name}\nVERSION_ID="{version}"',
            (SYSTEMD, "usr/lib/systemd/system/sshd.service"),
            [
                "hostnamectl set-hostname --static -- tern-07",
                USERADD,
                CHPASSWD,
                "systemctl try-reload-or-restart sshd",
            ],
            [SUDO],
        )
        for name, version in (("rhel", "7.9"), ("almalinux", "9.4"), ("ol", "8.9"), ("rhel", "10"))
    ),
    (
        "fedora",
        "ID=fedora\nVERSION_ID=41",
        (SYSTEMD,),
        [USERADD, CHPASSWD, "systemctl try-reload-or-restart sshd"],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "suse11",
        'ID=sles\nVERSION_ID="11.4"',
        (),
        [USERADD, CHPASSWD, "/sbin/service sshd restart"],
        ["etc/HOSTNAME: tern-07", SUDO],
    ),
    *(
        (
            "suse",
            f'ID={name}\nVERSION_ID="{version}"',
            (SYSTEMD,),
            [
                "hostnamectl set-hostname --static -- tern-07",
                USERADD,
                CHPASSWD,
                "systemctl try-reload-or-restart sshd",
            ],
            [SUDO],
        )
        for name, version in (("sles", "15.6"), ("opensuse-leap", "15.6"), ("sles", "12.5"))
    ),
    (
        "coreos",
        "ID=flatcar\nVERSION_ID=3815.2.0",
        (SYSTEMD,),
        [
            "useradd --create-home --password * harbor",
            CHPASSWD,
            "systemctl try-reload-or-restart sshd",
        ],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "mariner",
        'ID=azurelinux\nVERSION_ID="3.0"',
        (SYSTEMD,),
        [USERADD, CHPASSWD, "systemctl try-reload-or-restart sshd"],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "alpine",
        "ID=alpine\nVERSION_ID=3.20.0",
        (),
        [USERADD, CHPASSWD],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "arch",
        "ID=arch",
        (SYSTEMD,),
        [USERADD, CHPASSWD, "systemctl try-reload-or-restart sshd"],
        ["etc/hostname: tern-07", SUDO],
    ),
    (
        "freebsd",
        'ID=freebsd\nVERSION_ID="14.1"',
        ("etc/master.passwd",),
        [
            "pw useradd harbor -m",
            "pw usermod harbor -H 0 < HASH",
            "service sshd restart",
        ],
        ['etc/rc.conf: hostname="tern-07"', "usr/local/" + SUDO],
    ),
    (
        "openbsd",
        'ID=openbsd\nVERSION_ID="7.5"',
        ("etc/master.passwd",),
        [
            USERADD,
            "pwd_mkdb -p /etc/master.passwd",
            "rcctl restart sshd",
        ],
        ["etc/myname: tern-07", "etc/doas.conf: permit keepenv persist harbor"],
    ),
    (
        "default",
        "ID=frugalware",
        (SYSTEMD, "lib/systemd/system/ssh.service"),
        [USERADD, CHPASSWD, "systemctl try-reload-or-restart ssh"],
        ["etc/hostname: tern-07", SUDO],
    ),
]


class Tools:
    """Records every command; `useradd` and `pw` write the account, as the real ones do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.said: list[str] = []

    def run(self, argv: list[str], *, stdin: bytes | None = None, **more: Any) -> Finished:
        if argv[0] in ("visudo", "doas", "restorecon"):
            raise ToolNotFound("tool is missing", argv[0], "install it")
        words = " ".join(argv)
        if stdin is not None:
            text = stdin.decode().strip()
            head, dollar, _ = text.partition("$")
            words += f" < {head}HASH" if dollar else f" < {text}"
        self.said.append(words)
        if "useradd" in argv:
            for name in ("passwd", "master.passwd"):
                file = self._root / "etc" / name
                if file.exists():
                    with file.open("a") as stream:
                        stream.write("harbor:*:1001:1001::/home/harbor:/bin/sh\n")
        return Finished(tuple(argv), 0, b"", b"", False, 0.0)


def a_tree(root: Path, release: str, more: tuple[str, ...]) -> Paths:
    for folder in ("etc/ssh", "etc/sysconfig", "var/lib/waagent", "home"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text(PASSWD)
    if release.startswith("redhat-release: "):
        (root / "etc/redhat-release").write_text(release.partition(": ")[2])
    else:
        (root / "etc/os-release").write_text(release)
    for path in more:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(PASSWD if "passwd" in path else "")
    return Paths(root)


@pytest.mark.parametrize(
    ("name", "release", "more", "commands", "files"),
    CASES,
    ids=[f"{case[0]}-{case[1].split('=')[-1].strip(chr(34))[:12]}" for case in CASES],
)
def test_each_family_is_done_in_its_own_way(
    tmp_path: Path,
    name: str,
    release: str,
    more: tuple[str, ...],
    commands: list[str],
    files: list[str],
) -> None:
    paths, tools = a_tree(tmp_path, release, more), Tools(tmp_path)
    family = family_of(paths)

    host_name.set_host_name(paths, family, tools.run, "tern-07")
    users.ensure_account(paths, family, tools.run, "harbor", LOG)
    users.set_password(paths, family, Options(), tools.run, "harbor", Secret("x"), LOG)
    sudo.allow_sudo(paths, family, Options(), tools.run, "harbor", has_password=True)
    sshd_later.reload_sshd(paths, family, tools.run)

    assert family.name == name
    assert tools.said == commands
    assert "$6$" not in " ".join(tools.said)
    for item in files:
        path, _, line = item.partition(": ")
        assert line in (tmp_path / path).read_text().splitlines(), item
    if "master.passwd" in " ".join(commands):
        assert "harbor:$6$" in (tmp_path / "etc/master.passwd").read_text()


@pytest.mark.parametrize(
    ("family", "command"),
    [("freebsd", ["pw usermod root -h -"]), ("openbsd", ["usermod -p * root"]), ("debian", [])],
)
def test_root_is_locked_and_never_left_without_a_password(
    tmp_path: Path, family: str, command: list[str]
) -> None:
    paths = a_tree(tmp_path, f"ID={family}", ())
    row, tools = family_of(paths), Tools(tmp_path)
    file = paths.under(row.shadow)
    is_bsd = file.name == "master.passwd"
    file.write_text("root:$6$x$y:0:0:daemon:0:0:Charlie:/root:/bin/sh\n" if is_bsd else "root:x:\n")

    root_password.lock_root_password(paths, row, "", tools.run)

    assert row.lock_root_password == tuple(command[0].split()) if command else not tools.said
    field = file.read_text().split(":")[1]
    assert field[0] == "*" and root_password.is_locked(paths, row, "")
    assert file.read_text().count(":") == (9 if is_bsd else 8)


@pytest.mark.parametrize(
    ("files", "owner", "renew"),
    [
        (
            {"run/systemd/netif/links/2": "ADMIN_STATE=configured\n"},
            "systemd-networkd",
            ["networkctl renew eth0"],
        ),
        (
            {"run/NetworkManager/devices/2": "[device]\nmanaged=1\n"},
            "NetworkManager",
            ["nmcli device reapply eth0"],
        ),
        (
            {"var/lib/wicked/lease-eth0-dhcp-ipv4.xml": "<lease/>"},
            "wicked",
            ["wicked ifup eth0"],
        ),
        (
            {"proc/7/cmdline": "/sbin/dhclient\0-4\0-pf\0/run/p\0-lf\0/var/l\0eth0\0"},
            "dhclient",
            ["/sbin/dhclient -4 -pf /run/p -lf /var/l -1 eth0"],
        ),
        ({"proc/7/cmdline": "dhcpcd: eth0\0\0"}, "dhcpcd", ["dhcpcd -n eth0"]),
        ({"proc/7/cmdline": "/sbin/dhclient\0eth1\0"}, "", []),
        ({}, "", []),
    ],
)
def test_the_owner_of_a_link_is_found_and_asked(
    tmp_path: Path, files: dict[str, str], owner: str, renew: list[str]
) -> None:
    for path, text in {**files, "sys/class/net/eth0/ifindex": "2\n"}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    found = dhcp_clients.owner_of(Paths(tmp_path), "eth0")

    assert (found.name if found else "") == owner
    assert [" ".join(argv) for argv in (found.renew if found else ())] == renew


def test_the_bsds_have_their_own_clients(tmp_path: Path) -> None:
    for family, argv in (
        ("freebsd", ("/etc/rc.d/dhclient", "restart", "hn0")),
        ("openbsd", ("/sbin/dhclient", "hn0")),
    ):
        found = dhcp_clients.owner_of(Paths(tmp_path), "hn0", family)
        assert found is not None and found.renew == (argv,)


def test_dhcp_clients_send_the_name_from_their_next_start_on(tmp_path: Path) -> None:
    conf = tmp_path / "etc/dhcp/dhclient.conf"
    ifcfg = tmp_path / "etc/sysconfig/network-scripts/ifcfg-eth0"
    for file, text in ((conf, 'timeout 9;\n\n send host-name "old";\n'), (ifcfg, "DEVICE=eth0\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)

    assert len(dhcp_clients.write_name(Paths(tmp_path), "eth0", "tern-07")) == 2
    assert dhcp_clients.write_name(Paths(tmp_path), "eth0", "tern-07") == []

    assert conf.read_text() == 'send host-name "tern-07";\ntimeout 9;\n\n'
    assert ifcfg.read_text() == "DEVICE=eth0\nDHCP_HOSTNAME=tern-07\n"
    dhcp_clients.forget_name(Paths(tmp_path))
    assert conf.read_text() == "timeout 9;\n\n" and ifcfg.read_text() == "DEVICE=eth0\n"
    by_itself = "send host-name = gethostname();\n"
    conf.write_text(by_itself)
    dhcp_clients.forget_name(Paths(tmp_path))
    dhcp_clients.write_name(Paths(tmp_path), "eth0", "tern-08")
    assert conf.read_text() == by_itself


def test_an_unknown_distribution_says_what_it_goes_by(tmp_path: Path) -> None:
    paths = a_tree(tmp_path, "ID=frugalware\nVERSION_ID=3", (SYSTEMD, "etc/sudoers.d/x"))

    assert describe_unknown(paths) == (
        "frugalware 3 is not known, going by what is there: systemd, sudoers.d"
    )


def test_where_sshd_is_the_image_s_only_a_drop_in_is_written(tmp_path: Path) -> None:
    paths, tools = a_tree(tmp_path, "ID=fedora", ()), Tools(tmp_path)
    main = tmp_path / "etc/ssh/sshd_config"
    main.write_text("Port 22\n")
    settings = sshd.Sshd(paths, "/etc/ssh", no_sshd, LOG, may_edit_main=False)

    assert sshd.configure_sshd(settings, {"passwordauthentication": "no"}) == ""
    assert main.read_text() == "Port 22\n" and not tools.said

    main.write_text("Include sshd_config.d/*.conf\n")
    file = sshd.configure_sshd(settings, {"passwordauthentication": "no"})
    assert file.endswith("/etc/ssh/sshd_config.d/10-waagent.conf")


def no_sshd(argv: list[str], **options: Any) -> Finished:
    raise ToolNotFound("tool is missing", argv[0], "install it")
