"""The goal state document: what must be there, what may be missing, where its URLs may lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.base.input_errors import DocumentError
from waagent.protocol.wire.goal_state import (
    GoalState,
    NoRoleInstance,
    read_goal_state,
    read_versions,
)

ENDPOINT = "168.63.129.16"


def a_goal_state(
    *,
    incarnation="7",
    container="c-1",
    role="",
    machine="<LBProbePorts><Port>16001</Port></LBProbePorts>",
) -> bytes:
    role = (
        role
        or f"""<RoleInstance><InstanceId>i._vm1</InstanceId><State>Started</State><Configuration>
        <HostingEnvironmentConfig>http://{ENDPOINT}:80/m/h?comp=config&amp;type=h</HostingEnvironmentConfig>
        <SharedConfig>http://{ENDPOINT}:80/m/s</SharedConfig><ExtensionsConfig>
          http://{ENDPOINT}:80/m/a%2E%5Fvm1?comp=config&amp;type=e  </ExtensionsConfig>
        <Certificates>http://{ENDPOINT}:80/m/c</Certificates><ConfigName>d.3.d.4._vm1.1.xml</ConfigName><ConfigName>second</ConfigName>
        </Configuration></RoleInstance>"""
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>2012-11-30</Version><Incarnation>{incarnation}</Incarnation><Machine>{machine}</Machine>
  <Container><ContainerId>{container}</ContainerId><RoleInstanceList>{role}</RoleInstanceList></Container></GoalState>""".encode()


def test_everything_the_agent_acts_on_is_read() -> None:
    goal = read_goal_state(a_goal_state(), ENDPOINT)

    assert goal == GoalState(
        "7",
        "c-1",
        "i._vm1",
        "d.3.d.4._vm1.1.xml",
        (16001,),
        "/m/h?comp=config&type=h",
        "/m/s",
        "/m/a%2E%5Fvm1?comp=config&type=e",
        "/m/c",
        "",
    )


def test_configuration_may_be_empty() -> None:
    goal = read_goal_state(
        a_goal_state(role="<RoleInstance><InstanceId>i</InstanceId><State/></RoleInstance>"),
        ENDPOINT,
    )

    assert (goal.extensions_config, goal.certificates, goal.config_name) == ("", "", "")


def test_a_missing_role_instance_is_told_apart() -> None:
    with pytest.raises(NoRoleInstance):
        read_goal_state(a_goal_state(role=" "), ENDPOINT)


def test_all_probe_ports_are_kept_and_nonsense_is_not() -> None:
    machine = "<LBProbePorts><Port>80</Port><Port>x</Port><Port>70000</Port><Port>0</Port><Port>443</Port><Port>80</Port></LBProbePorts>"

    assert read_goal_state(a_goal_state(machine=machine), ENDPOINT).probe_ports == (80, 443)


@pytest.mark.parametrize(
    "data",
    [
        a_goal_state(incarnation=""),
        a_goal_state(container=""),
        a_goal_state(container="a b"),
        a_goal_state(container="a&#10;b"),
        a_goal_state().replace(b"168.63.129.16:80/m/c", b"10.0.0.1:80/m/c"),
        a_goal_state().replace(b"http://168.63.129.16:80/m/s", b"https://x/"),
        a_goal_state()[:400],
        b"<html><body>502</body></html>",
        b"<GoalState/>",
    ],
)
def test_is_refused(data: bytes) -> None:
    with pytest.raises(DocumentError):
        read_goal_state(data, ENDPOINT)


def test_only_the_path_counts_when_a_name_occurs_twice() -> None:
    goal = read_goal_state(a_goal_state(machine="<Incarnation>99</Incarnation>"), ENDPOINT)

    assert goal.incarnation == "7"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            b"<Versions><Preferred><Version>2012-11-30</Version></Preferred><Supported/></Versions>",
            True,
        ),
        (
            (
                b"<Versions><Preferred><Version>2015</Version></Preferred><Supported><Version>2010-28-10</Version><Version>2012-11-30</Version></Supported>"
                b"</Versions>"
            ),
            True,
        ),
        (b"<Versions><Preferred><Version>2015-04-05</Version></Preferred></Versions>", False),
    ],
)
def test_the_protocol_version_may_be_preferred_or_supported(
    document: bytes, expected: bool
) -> None:
    assert read_versions(document) is expected


@given(st.data())
def test_a_damaged_goal_state_raises_nothing_else(data: st.DataObject) -> None:
    document = bytearray(a_goal_state())
    for _ in range(data.draw(st.integers(0, 6))):
        document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
    document = document[: data.draw(st.integers(0, len(document)))]
    try:
        read_goal_state(bytes(document), ENDPOINT)
    except DocumentError:
        pass
