"""Users for a time: read from the WireServer when the goal state names them, handed to
account_keeper, which makes and removes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.backoff import next_pause_s, spread_s
from waagent.protocol.bus import topics
from waagent.protocol.wire.constants import CIPHERS
from waagent.workers.fabric_client.keeper import Keeper
from waagent.workers.fabric_client.transfer_process import Frame, Transfer

if TYPE_CHECKING:
    from waagent.workers.fabric_client.endpoint import Link
    from waagent.workers.runtime import Worker

ACCOUNTS = "account_keeper"
FETCH_DEADLINE_S = 60.0
USERS_DEADLINE_S = 120.0
PAUSES_S = (2.0, 10.0, 30.0, 120.0, 300.0)
MARK = b":JIT_Account"  # the comment field of such accounts, the predecessor's too
PASSWD_LIMIT_BYTES = 4 * 1024 * 1024
_HOLDER = "remote access"


class RemoteAccess:
    """Invariant: one round (document, users) at a time; account_keeper is wanted as long as there
    are such users, since it also removes them when their time is over.
    """

    def __init__(self, worker: Worker, link: Link, transfer: Transfer, keeper: Keeper) -> None:
        self._worker, self._link, self._transfer, self._keeper = worker, link, transfer, keeper
        self._accounts = worker.bus.client(ACCOUNTS)
        self._target = ""
        self._round = 0
        self._tries = 0
        self._is_wanted = False
        self._are_known_gone = False

    def look(self, target: str, *, is_new: bool) -> None:
        """The goal state's RemoteAccessInfo is at ``target``, empty: there is none."""
        if not is_new and target == self._target:
            return
        self._round += 1
        self._target, self._tries = target, 0
        if target:
            self._are_known_gone = False
            self._begin(self._round)
        elif self._are_known_gone:
            return
        elif self._is_wanted or self._are_there_any():
            self._give(self._round, ())
        else:
            self._are_known_gone = True
            # an earlier run of this worker may have wanted it, and a wish lasts until it is unsaid
            self._worker.supervisor.unwant(ACCOUNTS)

    def _are_there_any(self) -> bool:
        """Whether an earlier life of this machine left such accounts."""
        try:
            with open(self._worker.paths.under("/etc/passwd"), "rb") as stream:
                return MARK in stream.read(PASSWD_LIMIT_BYTES)
        except OSError:
            return True  # account_keeper can look

    def _begin(self, number: int) -> None:
        if number != self._round:
            return
        self._keeper.hold(_HOLDER)

        def known(certificate: str, error: str) -> None:
            if number == self._round:
                if certificate:
                    self._fetch(number, certificate)
                else:
                    self._failed(number, error)

        self._keeper.ask_certificate(known)

    def _fetch(self, number: int, certificate: str) -> None:
        frames: list[Frame] = []
        job = {
            "operation": "remote_access",
            "target": self._target,
            "certificate": certificate,
            "cipher": CIPHERS[0],
            "endpoint": self._link.address,
            "port": self._link.ports.wire,
        }

        def ended(error: str) -> None:
            if number != self._round:
                return
            found = next((frame for frame in frames if frame.get("kind") == "users"), None)
            if found is None:
                told = [str(frame.get("text"))[:300] for frame in frames]
                self._failed(number, error or "; ".join(told) or "no usable document")
                return
            for finding in found["findings"]:
                self._worker.faults.seen(
                    f"remote access {finding[:60]}",
                    f"RemoteAccess: {finding}: the platform must correct it",
                )
            users = [topics.from_body(topics.RemoteUser, body) for body in found["users"]]
            self._give(number, tuple(users))

        self._transfer.run(job, deadline_s=FETCH_DEADLINE_S, on_frame=frames.append, on_end=ended)

    def _give(self, number: int, users: tuple[topics.RemoteUser, ...]) -> None:
        if not self._is_wanted:
            self._is_wanted = True
            self._worker.supervisor.want(ACCOUNTS)

        def given(body: Mapping[str, Any] | None, error: str) -> None:
            if number != self._round:
                return
            if body is None:
                self._failed(number, error, users)
                return
            self._worker.faults.ended("remote access", "remote access users are there again")
            self._keeper.release(_HOLDER)
            self._are_known_gone = not users
            if not users:
                self._is_wanted = False
                self._worker.supervisor.unwant(ACCOUNTS)

        self._accounts.ask(
            topics.REMOTE_USERS,
            topics.to_body(topics.RemoteUsers(users)),
            deadline_s=USERS_DEADLINE_S,
            done=given,
        )

    def _failed(
        self, number: int, text: str, users: tuple[topics.RemoteUser, ...] | None = None
    ) -> None:
        self._tries += 1
        pause_s = spread_s(next_pause_s(self._tries, PAUSES_S))
        self._worker.faults.seen(
            "remote access",
            f"remote access users cannot be set up: {text}: none needed, tried again in"
            f" {pause_s:.0f} s",
        )
        self._keeper.release(_HOLDER)

        def again() -> None:
            if number == self._round:
                self._give(number, users) if users is not None else self._begin(number)

        self._worker.loop.after(pause_s, again)
