"""Addresses of the bus, and who is at the other end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.protocol.bus import sockets
from waagent.protocol.bus.admission import Peer, peer_of, worker_of
from waagent.protocol.bus.bus_errors import SocketPathError
from waagent.protocol.state_table import Table, WorkerRow


def test_a_path_over_107_bytes_gives_one_clear_error() -> None:
    path = Path("/tmp") / ("r" * 90) / "run/waagent/bus/echo"

    with pytest.raises(SocketPathError) as refused:
        sockets.open_dealer(sockets.new_context(), path)

    what = f"path of {len(str(path))} bytes is too long for a Unix socket"
    assert str(refused.value) == f"{what}: {path}: use a shorter root, the limit is 107"


def test_a_path_of_107_bytes_is_taken() -> None:
    path = "/" + "r" * 106

    assert sockets.address_of(Path(path)) == f"ipc://{path}"


def test_the_kernels_word_stands_at_the_end_of_the_address() -> None:
    assert peer_of(b"localhost:64510:64512:731") == Peer(64510, 64512, 731)
    assert peer_of(b"/a:1:2:3/b:0:0:9") == Peer(0, 0, 9)


@given(st.binary(max_size=40))
def test_any_address_names_a_peer_or_nobody(address: bytes) -> None:
    peer = peer_of(address)

    assert (
        peer is None
        or address.endswith(b":%d" % peer.pid)
        or address.rsplit(b":", 1)[1].startswith(b"0")
    )


def test_only_a_pid_of_the_table_has_a_name() -> None:
    table = Table(workers=(WorkerRow(name="provisioner"), WorkerRow(name="fabric_client", pid=731)))

    assert worker_of(table, 731) == "fabric_client"
    assert worker_of(table, 732) is None
    assert worker_of(Table(workers=(WorkerRow(name="provisioner", pid=0),)), 0) is None
    assert worker_of(Table(), 731) is None
