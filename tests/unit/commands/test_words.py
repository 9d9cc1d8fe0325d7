"""The command line of waagent: which words are taken, and what they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import UsageError
from waagent.supervisor.commands import arguments
from waagent.supervisor.ps import arguments as ps_arguments


@pytest.mark.parametrize("text", ["version", "-version", "--version", "/version", "-/-version"])
def test_a_word_may_have_any_prefix(text: str) -> None:
    command = arguments.read_line([text]).command

    assert command is not None and command.name == "version"


@pytest.mark.parametrize(
    "words",
    [
        ["-configuration-path:/a b/c"],
        ["--configuration-path", "/a b/c"],
        ["-configuration-path=/a b/c"],
        ["-conf=/a b/c"],
    ],
)
def test_values_are_taken_verbatim(words: list[str]) -> None:
    assert arguments.read_line(words).configuration_path == "/a b/c"


def test_a_path_behind_check_configuration_is_its_file() -> None:
    line = arguments.read_line(["-check-configuration", "/etc/waagent.conf", "-verbose"])

    assert (line.value, line.is_verbose) == ("/etc/waagent.conf", True)
    assert arguments.read_line(["-check-configuration", "-verbose"]).value is None


@pytest.mark.parametrize(
    "words",
    [
        ["versio"],
        ["-Version"],
        ["-daemon=1"],
        ["-root"],
        ["-deprovision+users"],
        ["-verbose:1"],
        [""],
        ["-"],
    ],
)
def test_what_is_not_understood_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        arguments.read_line(words)


def test_help_wins_and_else_the_last_command() -> None:
    names = [
        arguments.read_line(words).command
        for words in (["-daemon", "-help"], ["-help", "-daemon"], ["-daemon", "-version"])
    ]

    assert [name.name for name in names if name] == ["help", "help", "version"]


def test_the_usage_fits_a_terminal_and_names_every_command() -> None:
    text = arguments.usage()

    assert all(len(line) <= 80 and line.isascii() for line in text.splitlines())
    assert all(f"-{word.name}" in text for word in arguments.COMMANDS)
    assert all(len(line) <= 80 for line in ps_arguments.usage().splitlines())


@given(
    st.lists(
        st.one_of(
            st.text(max_size=12),
            st.sampled_from(["-root", "-daemon", "/", "--x=y", "-check-configuration"]),
        ),
        max_size=5,
    )
)
def test_any_words_are_understood_or_refused_in_one_line(words: list[str]) -> None:
    for read, error in (
        (arguments.read_line, UsageError),
        (ps_arguments.read_line, UsageError),
    ):
        try:
            read(words)
        except error as refused:
            assert "\n" not in str(refused) and str(refused).isascii()


@pytest.mark.parametrize(
    "words",
    [
        ["--what"],
        ["--json=1"],
        ["--wait", "lunch"],
        ["--timeout", "soon"],
        ["--timeout=-1"],
        ["restart"],
        ["extensions", "stop"],
        ["-x"],
        ["all"],
    ],
)
def test_waagent_ps_refuses(words: list[str]) -> None:
    with pytest.raises(UsageError):
        ps_arguments.read_line(words)
