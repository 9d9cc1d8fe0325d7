"""Claims about option 245 in the lease files of DHCP clients, and about the route test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.workers.environment_monitor.leases import (
    LIMIT_BYTES,
    address_of_text,
    endpoint_in_dhclient_leases,
    endpoint_in_lease_files,
    endpoint_in_networkd_lease,
)
from waagent.workers.environment_monitor.network import (
    Interface,
    has_wireserver_route,
    order_interfaces,
    parse_routes,
)

NOW_S = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
FUTURE, PAST = "4 2023/11/14 22:13:21", "4 2023/11/14 22:13:19"


def a_lease(value: str, expire: str, option: str = "unknown-245") -> str:
    return f'lease {{\n  interface "eth0";\n  option {option} {value};\n  expire {expire};\n}}\n'


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("a8:3f:81:10", "168.63.129.16"),
        ("a8:3f:1:10", "168.63.1.16"),
        ("a83f8110", "168.63.129.16"),
        ('"bL6 "', "98.76.54.32"),
        ('"b\\"6\\\\"', "98.34.54.92"),
        ("7f:0:0:1", None),
        ("0:1:2:3", None),
        ("e0:0:0:1", None),
        ("a8:3f:81", None),
        ("a8:3f:81:100", None),
        ('"abcde"', None),
        ("", None),
    ],
)
def test_every_form_that_clients_write_is_read(value: str, address: str | None) -> None:
    assert address_of_text(value) == (address or None)


@pytest.mark.parametrize(
    ("expire", "counts"),
    [
        (FUTURE, True),
        (PAST, False),
        ("never", True),
        ("epoch 1700000001", True),
        ("epoch 1699999999", False),
        (f"{FUTURE} UTC", True),
        ("tomorrow", False),
        ("4 2023/99/99 22:13:21", False),
    ],
)
def test_only_a_block_that_has_not_expired_counts(expire: str, counts: bool) -> None:
    found = endpoint_in_dhclient_leases(a_lease("a8:3f:81:10", expire), NOW_S)

    assert (found is not None) == counts


def test_the_last_valid_block_wins() -> None:
    text = a_lease("a:0:0:1", "never") + a_lease("a:0:0:2", "never") + a_lease("a:0:0:3", PAST)

    assert endpoint_in_dhclient_leases(text, NOW_S) == "10.0.0.2"


def test_the_bsd_spelling_is_known() -> None:
    assert (
        endpoint_in_dhclient_leases(a_lease("a8:3f:81:10", "never", "option-245"), NOW_S)
        == "168.63.129.16"
    )


def test_systemd_networkd_writes_plain_hex() -> None:
    assert endpoint_in_networkd_lease("ADDRESS=10.0.0.4\nOPTION_245=a83f8110\n") == "168.63.129.16"


def test_links_to_devices_fifos_and_huge_files_are_passed_over(tmp_path: Path) -> None:
    good, huge = tmp_path / "a.leases", tmp_path / "b.leases"
    good.write_text(a_lease("a8:3f:81:10", "never"))
    huge.write_text(a_lease("a:0:0:9", "never") + " " * LIMIT_BYTES)
    os.mkfifo(tmp_path / "c.leases")
    (tmp_path / "d.leases").symlink_to("/dev/zero")

    found = endpoint_in_lease_files(tmp_path.glob("*.leases"), (), NOW_S)

    assert found == ("168.63.129.16", good)


@given(st.text(max_size=300))
def test_any_text_is_read_without_an_error(text: str) -> None:
    endpoint_in_dhclient_leases(a_lease(text, text), NOW_S)
    endpoint_in_dhclient_leases(text, NOW_S)
    endpoint_in_networkd_lease(f"OPTION_245={text}")


ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t{destination}\t0100000A\t0007\t0\t0\t100\tFFFFFFFF\t0\t0\t0
garbage
"""


def test_the_route_to_the_wireserver_is_recognised_as_a_destination() -> None:
    with_route = parse_routes(ROUTES.format(destination="10813FA8"))
    without = parse_routes(ROUTES.format(destination="20813FA8").replace("0100000A", "10813FA8"))

    assert has_wireserver_route(with_route)
    assert not has_wireserver_route(without)


def test_the_best_default_route_says_where_to_ask() -> None:
    routes = parse_routes(ROUTES.format(destination="10813FA8"))

    assert order_interfaces(("docker0", "eth0", "eth1"), routes, "") == ("eth0",)
    assert order_interfaces(("docker0", "eth0", "eth1"), routes, "eth1") == ("eth1",)
    assert order_interfaces(("eth2", "eth3"), (), "gone0") == ("eth2", "eth3")
    assert Interface("eth0", b"\0" * 6).name == "eth0"


@given(st.text(max_size=200))
def test_any_route_table_is_read_without_an_error(text: str) -> None:
    parse_routes("header\n" + text)
