"""Texts of failures, the environment of a command, limits of sandbox.d, names of logs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.distro.operations.records import FINISHED, LOST, Kept, Observation
from waagent.workers.extension_runner.environment import command_environment, shown_environment
from waagent.workers.extension_runner.limits import TIMEOUTS_S, parse_limits
from waagent.workers.extension_runner.messages import (
    TEXT_LIMIT,
    failure,
    output_part,
    redact,
)
from waagent.workers.extension_runner.plan import OperationKey

KEY = OperationKey("C.S", "1.0", "enable", "", 3, "incarnation_1", "boot")


def an_end(state: str = FINISHED, **fields: Any) -> Observation:
    planned, started = {"deadline_s": 300.0}, {"groups": [[2, [], "/cg"]]}
    return Observation(
        state, planned, started, **fields, stdout=Kept(b"out\n"), stderr=Kept(b"err\n")
    )


@pytest.mark.parametrize(
    ("end", "code", "text"),
    [
        (
            an_end(exit_code=7),
            1009,
            (
                "[ExtensionOperationError] Non-zero exit code: 7, /lib/x"
                " a\n[stdout]\nout\n\n\n[stderr]\nerr\n"
            ),
        ),
        (
            an_end(signal=9, timed_out=True),
            1011,
            "[ExtensionError] Timeout(300): /lib/x a\n[stdout]",
        ),
        (
            an_end(signal=9, oom_kills=1),
            1009,
            (
                "[ExtensionOperationError] Terminated by signal 9 (SIGKILL), out of memory in"
                " /cg, /lib/x a"
            ),
        ),
        (
            an_end(error="No such file"),
            1009,
            "[ExtensionError] Failed to launch '/lib/x a': No such file",
        ),
        (an_end(LOST), -1, "[ExtensionError] the shim was killed"),
    ],
)
def test_how_a_command_ended_is_said_in_the_contracts_words(
    end: Observation, code: int, text: str
) -> None:
    said = failure("enable", "/lib/x a", end)

    assert said[0] == code and said[1].startswith(text)


def test_exit_126_on_a_noexec_mount_says_so() -> None:
    assert (
        "mounted noexec" in failure("install", "/lib/x", an_end(exit_code=126), is_noexec=True)[1]
    )


@pytest.mark.parametrize(
    "text",
    [
        "GET https://a.blob/x?foo=1&sig=SECRET&se=2 ok",
        'password="SECRET x"',
        "PassWord: SECRET",
        "sig=SECRET&x",
        "AccountKey=SECRET;x",
        '{"protectedSettings": "SECRET"}',
        "-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nSECRET cut off",
        "http://x?sig=SECRET",
    ],
)
def test_secrets_do_not_get_through(text: str) -> None:
    assert "SECRET" not in redact(text) and "SECRET" not in output_part(Kept(text.encode()), Kept())


@given(st.binary(max_size=9000), st.binary(max_size=9000), st.integers(0, 10**9))
def test_output_is_bounded_and_printable_whatever_it_was(
    stdout: bytes, stderr: bytes, dropped: int
) -> None:
    text = output_part(Kept(stdout, b"", dropped), Kept(stderr))

    assert (
        len(text) <= TEXT_LIMIT
        and "\x00" not in text
        and "\x1b" not in text
        and text.startswith("[stdout]\n")
    )


def test_nothing_of_the_agents_environment_leaks() -> None:
    ours = {
        "PATH": "/x:/snap/bin",
        "NOTIFY_SOCKET": "/x",
        "PYTHONPATH": "/x",
        "LD_PRELOAD": "/x",
        "https_proxy": "http://p",
        "LANG": "de_DE",
    }

    environment = command_environment(KEY, "/lib/C.S-1.0", "", ours)

    assert not {"NOTIFY_SOCKET", "PYTHONPATH", "LD_PRELOAD", "ConfigExtensionName"} & set(
        environment
    )
    assert (
        environment["https_proxy"] == "http://p"
        and environment["LANG"] == "de_DE"
        and environment["PATH"].endswith("/bin:/snap/bin")
    )
    assert environment["AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS"] == "168.63.129.16"
    assert all(name.startswith(("AZURE_", "Config")) for name in shown_environment(environment))


def test_limits_are_read_and_mistakes_named_with_their_line() -> None:
    limits = parse_limits(
        b"# c\nTimeout.Enable=4\ntimeout.install ="
        b" 20m\nMemoryMaxMB=64\nPidsMax=x\nFoo=1\nProfile=default\n",
        "f",
    )

    assert (
        limits.timeouts_s["enable"],
        limits.timeouts_s["install"],
        limits.timeouts_s["disable"],
    ) == (4, 1200, 900)
    assert (limits.memory_mib, limits.pids, limits.refusal) == (64, None, "")
    assert [warning.split(": ")[0] for warning in limits.warnings] == ["f:5", "f:6"]


@pytest.mark.parametrize(
    "line",
    [b"Profile=strong", b"Profile strict", b"WritePaths=x", b"Network='n", b"Capabilities=NONE"],
)
def test_a_line_of_security_that_cannot_be_honoured_stops_the_handler(line: bytes) -> None:
    assert "f:1" in parse_limits(line, "f").refusal


@given(st.binary(max_size=200))
def test_no_file_of_limits_stops_the_runner(data: bytes) -> None:
    assert set(parse_limits(data, "f").timeouts_s) == set(TIMEOUTS_S)


def test_an_operations_id_says_nothing_of_the_handler() -> None:
    assert len(KEY.id) == 32 and int(KEY.id, 16) >= 0
