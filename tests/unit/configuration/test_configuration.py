"""waagent.conf: what a line means, which values hold, what an operator is told."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.paths import Paths
from waagent.protocol.configuration.loading import (
    FILE_LIMIT_BYTES,
    defaults,
    for_worker,
    load,
    load_bytes,
)
from waagent.protocol.configuration.options import OPTIONS, SEED

SEED_SAMPLE = {
    "Role.StateConsumer": None,
    "Role.ConfigurationConsumer": None,
    "Role.TopologyConsumer": None,
    "Provisioning.Enabled": True,
    "Provisioning.DeleteRootPassword": False,
    "Provisioning.RegenerateSshHostKeyPair": True,
    "Provisioning.SshHostKeyPairType": "rsa",
    "Provisioning.MonitorHostName": True,
    "Provisioning.DecodeCustomData": False,
    "Provisioning.ExecuteCustomData": False,
    "Provisioning.PasswordCryptId": "6",
    "Provisioning.PasswordCryptSaltLength": 10,
    "ResourceDisk.Format": True,
    "ResourceDisk.Filesystem": "ext4",
    "ResourceDisk.MountPoint": "/mnt/resource",
    "ResourceDisk.EnableSwap": False,
    "ResourceDisk.SwapSizeMB": 0,
    "LBProbeResponder": True,
    "Logs.Verbose": False,
    "OS.RootDeviceScsiTimeout": 300,
    "OS.OpensslPath": None,
    "HttpProxy.Host": None,
    "HttpProxy.Port": None,
}
FINDING = re.compile(r"[^:]+:\d+: [^:]+: .+: .+")


def value_of(line: str, key: str = "OS.RdmaRepository") -> object:
    return load_bytes(line.encode()).values[key]


def complaints(text: str) -> list[str]:
    return [str(finding) for finding in load_bytes(text.encode()).findings]


def write_configuration(root: Path, text: str, **drop_ins: str) -> Paths:
    paths = Paths(root)
    paths.configuration_folder.mkdir(parents=True)
    paths.configuration.write_text(text)
    for name, content in drop_ins.items():
        (paths.configuration_folder / f"{name}.conf").write_text(content)
    return paths


def test_an_empty_file_means_the_documented_defaults() -> None:
    values = load_bytes(b"").values

    assert {name: values[name] for name in SEED_SAMPLE} == SEED_SAMPLE
    assert {name for name, option in OPTIONS.items() if option.use == SEED} == set(SEED_SAMPLE)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("OS.RdmaRepository=a", "a"),
        (" OS.RdmaRepository = a ", "a"),
        ("\tOS.RdmaRepository=a\r", "a"),
        ('OS.RdmaRepository="x y"', "x y"),
        ("OS.RdmaRepository='x y'", "x y"),
        ('OS.RdmaRepository="x # y" # note', "x # y"),
        ("OS.RdmaRepository=a b", "a b"),
        ("OS.RdmaRepository=a # note", "a"),
        ("OS.RdmaRepository=a#b", "a#b"),
        ("OS.RdmaRepository=1=2", "1=2"),
        ("OS.RdmaRepository=", None),
        ("OS.RdmaRepository=None", None),
        ('OS.RdmaRepository="None"', None),
        ('OS.RdmaRepository="a"\r', "a"),
        ("\ufeffOS.RdmaRepository=a", "a"),
        ("# OS.RdmaRepository=a", None),
        ("   # OS.RdmaRepository=a", None),
        ("OS.RdmaRepository=a\nOS.RdmaRepository=b", "b"),
        ("OS.RdmaRepository=a\nOS.RdmaRepository=None", None),
    ],
)
def test_a_line_means(line: str, value: object) -> None:
    assert value_of(line) == value


@pytest.mark.parametrize("word", ["y", "Y", "yes", "True", "1", "ON"])
def test_words_for_yes(word: str) -> None:
    assert value_of(f"Logs.Verbose={word}", "Logs.Verbose") is True


@pytest.mark.parametrize("word", ["n", "No", "false", "0", "off"])
def test_words_for_no(word: str) -> None:
    assert value_of(f"LBProbeResponder={word}", "LBProbeResponder") is False


@pytest.mark.parametrize(
    ("line", "key", "default", "names"),
    [
        (
            "ResourceDisk.SwapSizeMB=lots",
            "ResourceDisk.SwapSizeMB",
            0,
            "'lots' is no number, using 0: write digits, 0 to 1048576",
        ),
        ("ResourceDisk.SwapSizeMB=-5", "ResourceDisk.SwapSizeMB", 0, "using 0"),
        (
            "LBProbeResponder=maybe",
            "LBProbeResponder",
            True,
            "'maybe' is neither y nor n, using True: write y or n",
        ),
        ("LBProbeResponder=", "LBProbeResponder", True, "neither y nor n"),
        ("ResourceDisk.Filesystem=ext4;reboot", "ResourceDisk.Filesystem", "ext4", "using ext4"),
        (
            "ResourceDisk.MountPoint=mnt",
            "ResourceDisk.MountPoint",
            "/mnt/resource",
            "not an absolute path",
        ),
        ("ResourceDisk.MountPoint=/mnt/../etc", "ResourceDisk.MountPoint", "/mnt/resource", ".."),
        (
            "ResourceDisk.MountPoint=/var",
            "ResourceDisk.MountPoint",
            "/mnt/resource",
            "hidden by the disk",
        ),
        ("Lib.Dir=/var/lib/", "Lib.Dir", "/var/lib/waagent", "belongs to the system"),
        ("Extension.LogDir=/", "Extension.LogDir", "/var/log/azure", "belongs to the system"),
        ("OS.OpensslPath=none", "OS.OpensslPath", None, "write None, with a capital N"),
        ("HttpProxy.Port=8080/", "HttpProxy.Port", None, "no number"),
        ("HttpProxy.Port=65536", "HttpProxy.Port", None, "1 to 65535"),
        ("OS.RootDeviceScsiTimeout=0", "OS.RootDeviceScsiTimeout", None, "1 to 86400"),
        (
            "Provisioning.PasswordCryptSaltLength=17",
            "Provisioning.PasswordCryptSaltLength",
            10,
            "1 to 16",
        ),
        (
            "Provisioning.Agent=cloudinit",
            "Provisioning.Agent",
            "auto",
            "auto, waagent, cloud-init or disabled",
        ),
        ("Extensions.GoalStatePeriod=0", "Extensions.GoalStatePeriod", 6, "number from 1"),
    ],
)
def test_an_invalid_value_falls_back_and_is_named(
    line: str, key: str, default: object, names: str
) -> None:
    loaded = load_bytes(f"\n{line}\n".encode(), "/etc/waagent.conf")

    assert loaded.values[key] == default
    named = [str(finding) for finding in loaded.findings if finding.option == key]
    assert named[0].startswith(f"/etc/waagent.conf:2: {key}: ")
    assert names in named[0]


def test_a_bad_line_never_rejects_the_file() -> None:
    loaded = load_bytes(b"garbage\n=x\n\xff\xfe\x00\nLogs.Verbose=y\n")

    assert loaded.values["Logs.Verbose"] is True
    assert [finding.line for finding in loaded.findings] == [1, 2, 3]


def test_an_unknown_option_is_named_with_the_nearest_one() -> None:
    assert complaints("AutoUpdate.Frequency=3") == [
        "waagent.conf:1: AutoUpdate.Frequency: unknown option, ignored: did you mean"
        " Autoupdate.Frequency"
    ]
    assert complaints("Provisioning.DeleteRootPasword=y")[0].endswith(
        "did you mean Provisioning.DeleteRootPassword"
    )
    assert complaints("Qqqq=y")[0].endswith("unknown option, ignored: remove the line")


def test_the_last_of_two_lines_wins_and_both_are_named() -> None:
    assert complaints("Logs.Verbose=n\nLogs.Verbose=y") == [
        "waagent.conf:2: Logs.Verbose: is set in line 1 already, this line wins: remove one of"
        " the two"
    ]


def test_an_agent_that_is_named_wins_over_the_switch() -> None:
    by_enabled = load_bytes(b"Provisioning.Enabled=n").values
    by_agent = load_bytes(b"Provisioning.Agent=disabled").values
    both = load_bytes(b"Provisioning.Enabled=n\nProvisioning.Agent=auto")

    # left to cloud-init, where it is enabled
    assert by_enabled["Provisioning.Agent"] == "auto"
    assert by_enabled["Provisioning.Enabled"] is False
    assert by_agent["Provisioning.Enabled"] is False
    assert both.values["Provisioning.Enabled"] is True
    assert "Provisioning.Agent is present and wins" in str(both.findings[0])


def test_options_follow_others_when_absent() -> None:
    values = load_bytes(b"AutoUpdate.Enabled=n\nExtensions.GoalStatePeriod=20").values

    assert values["AutoUpdate.UpdateToLatestVersion"] is False
    assert values["Extensions.InitialGoalStatePeriod"] == 20


def test_none_leaves_the_scsi_timeout_of_the_system_alone() -> None:
    assert load_bytes(b"OS.RootDeviceScsiTimeout=None").values["OS.RootDeviceScsiTimeout"] is None


def test_a_proxy_without_port_is_named() -> None:
    assert (
        "HttpProxy.Port is missing, no proxy is used: add HttpProxy.Port=NUMBER"
        in complaints("HttpProxy.Host=proxy.corp")[0]
    )


def test_a_password_in_a_proxy_is_not_repeated() -> None:
    assert "hunter2" not in complaints("HttpProxy.Host=http://me:hunter2@proxy")[0]


def test_drop_ins_come_after_the_main_file_in_the_order_of_their_names(tmp_path: Path) -> None:
    paths = write_configuration(
        tmp_path,
        "Logs.Verbose=n\nOS.RdmaRepository=main\n",
        b="OS.RdmaRepository=b\n",
        a="OS.RdmaRepository=a\nLogs.Verbose=y\n",
    )
    (paths.configuration_folder / "c.conf.rpmsave").write_text("OS.RdmaRepository=c\n")

    loaded = load(paths)

    assert loaded.values["OS.RdmaRepository"] == "b"
    assert loaded.values["Logs.Verbose"] is True
    assert loaded.origins["OS.RdmaRepository"] == f"{paths.configuration_folder}/b.conf:1"
    assert loaded.findings == ()


def test_a_missing_file_gives_defaults_and_one_finding(tmp_path: Path) -> None:
    loaded = load(Paths(tmp_path))

    assert loaded.values == defaults()
    assert [finding.problem for finding in loaded.findings] == [
        "the file is missing, every option has its default"
    ]


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: os.symlink("/dev/zero", path),
        lambda path: os.symlink(path, path),
    ],
)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    paths = Paths(tmp_path)
    paths.configuration.parent.mkdir()
    make(paths.configuration)

    loaded = load(paths)

    assert loaded.values == defaults()
    assert len(loaded.findings) == 1


def test_a_huge_file_is_read_to_its_limit(tmp_path: Path) -> None:
    paths = write_configuration(tmp_path, "Logs.Verbose=y\n" + "#" * FILE_LIMIT_BYTES)

    loaded = load(paths)

    assert loaded.values["Logs.Verbose"] is True
    assert "only the first" in str(loaded.findings[0])


def test_a_file_that_others_may_write_is_named(tmp_path: Path) -> None:
    paths = write_configuration(tmp_path, "")
    paths.configuration.chmod(0o666)

    assert "others than root can change what root executes: chown root" in str(
        load(paths).findings[0]
    )
    assert load(paths, judge_owner=False).findings == ()


def test_files_of_other_distributions_are_found(tmp_path: Path) -> None:
    place = tmp_path / "usr/share/oem/waagent.conf"
    place.parent.mkdir(parents=True)
    place.write_text("Logs.Verbose=y\n")

    assert load(Paths(tmp_path)).values["Logs.Verbose"] is True


def test_a_worker_gets_its_keys_only() -> None:
    given_to = for_worker(defaults(), ("HttpProxy.", "Logs.Verbose"))

    assert given_to == {"HttpProxy.Host": None, "HttpProxy.Port": None, "Logs.Verbose": False}


@given(st.binary(max_size=400))
def test_any_bytes_are_a_configuration(data: bytes) -> None:
    loaded = load_bytes(data)

    assert set(loaded.values) == set(OPTIONS)


_LINE = st.tuples(
    st.sampled_from(sorted(OPTIONS)),
    st.sampled_from(["=", " = ", '="', "='"]),
    st.text(max_size=30),
).map("".join)


@given(st.lists(_LINE, max_size=8))
def test_every_value_has_its_type_and_every_finding_its_form(written: list[str]) -> None:
    loaded = load_bytes("\n".join(written).encode("utf-8", "surrogatepass"))

    for name, value in loaded.values.items():
        assert (
            value is None
            or type(value) is type(OPTIONS[name].default)
            or OPTIONS[name].default in (None, "auto")
        )
        if isinstance(value, str):
            assert "\n" not in value and "\x00" not in value
    for finding in loaded.findings:
        assert "\n" not in str(finding)
        assert str(finding).isascii()
        assert FINDING.match(str(finding))
