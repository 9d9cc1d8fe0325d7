"""Keeps the accounts of just-in-time access as the platform wants them, and no longer than it says.

Is asked by fabric_client alone: REMOTE_USERS with all that there shall be. Asks certificate_keeper
for the passwords, which are encrypted to the transport certificate. Root: it changes accounts;
runs as long as there are such users, for their end is its to see. Only accounts with its own mark
in the comment field are ever changed or removed. Killed here: useradd's own expiry date holds, and
the same request comes again with the next goal state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent.distro.run import ToolError
from waagent.protocol.bus import topics
from waagent.protocol.bus.bus_errors import BusError
from waagent.protocol.bus.topics import RemoteUser, RemoteUsers
from waagent.workers.account_keeper import accounts, plan

if TYPE_CHECKING:
    from waagent.protocol.bus.server import Request
    from waagent.workers.loop import Timer
    from waagent.workers.runtime import Worker

KEEPER = "certificate_keeper"
CLIENTS = ("fabric_client",)
PASSWORD_DEADLINE_S = 60.0
LOOK_LIMIT_S = 300.0  # the wall clock may be set while we wait for a time of day


def main(worker: Worker) -> None:
    """Answer, and look when a user's time is over, until told to stop."""
    keeper = AccountKeeper(worker)
    worker.bus.serve().on_request(topics.REMOTE_USERS, CLIENTS, keeper.asked)
    worker.supervisor.ready()
    worker.loop.run()


class AccountKeeper:
    """Invariant: an account of this kind that is not in the last request is removed with it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._keeper = worker.bus.client(KEEPER)
        self._wanted: tuple[RemoteUser, ...] = ()
        self._timer: Timer | None = None

    def asked(self, request: Request) -> Mapping[str, Any] | None:
        """REMOTE_USERS: answered when the accounts are as it says."""
        self._wanted = topics.from_body(RemoteUsers, request.body).users
        problems = self._apply()
        if problems:
            request.refuse("; ".join(problems)[:1000])
            return None
        return {}

    def _apply(self) -> list[str]:
        """What could not be done now, and may be later."""
        paths, run, log = self._worker.paths, self._worker.run, self._worker.log
        folder = self._worker.configuration.get("OS.SudoersDir")
        try:
            todo = plan.plan_accounts(self._wanted, accounts.present_accounts(paths), time.time())
            accounts.allow_sudo(paths, folder, run, todo.keep)
            problems = self._remove(todo.remove)
            made, failed = self._create(todo.create)
            accounts.allow_sudo(paths, folder, run, [*todo.keep, *made])
        except (OSError, ToolError) as error:
            log.warning("remote access: %s", error)
            return [str(error)]
        for name, why in todo.refused:
            self._worker.faults.seen(
                f"refused {name}", f"remote access user {name!r} is not made: {why}: RemoteAccess"
            )
        self._wait_for(todo.next_end_at)
        self._worker.supervisor.doing(f"{len(todo.keep) + len(made)} users for a time")
        return [*problems, *failed]

    def _remove(self, names: tuple[str, ...]) -> list[str]:
        for name in names:
            accounts.remove(self._worker.run, name)
        left = [name for name in names if name in accounts.present_accounts(self._worker.paths)]
        for name in names:
            if name not in left:
                self._worker.log.info("removed user %s of remote access", name)
        return [f"userdel left {name}" for name in left]

    def _create(self, users: tuple[RemoteUser, ...]) -> tuple[list[str], list[str]]:
        """(names that were made, why others were not)."""
        made: list[str] = []
        failed: list[str] = []
        if not users:
            return made, failed
        self._worker.supervisor.want(KEEPER)
        try:
            for user in users:
                try:
                    accounts.create(self._worker.run, user, self._password(user))
                except (accounts.AccountError, BusError) as error:
                    failed.append(f"user {user.name}: {error}")
                    self._worker.faults.seen(f"user {user.name}", f"user {user.name}: {error}")
                else:
                    made.append(user.name)
                    self._worker.log.info("created user %s of remote access", user.name)
        finally:
            self._worker.supervisor.unwant(KEEPER)
        return made, failed

    def _password(self, user: RemoteUser) -> bytes:
        """Raises AccountError, BusError."""
        body = self._keeper.request(
            topics.PASSWORD,
            {"cms": user.password},
            deadline_s=PASSWORD_DEADLINE_S,
            reason=f"opening the password of {user.name}",
        )
        password = body.get("password")
        if not isinstance(password, bytes):
            raise accounts.AccountError("certificate_keeper gave no password")
        return password

    def _wait_for(self, end_at: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if end_at is not None:
            left_s = max(1.0, end_at - time.time())
            self._timer = self._worker.loop.after(min(left_s, LOOK_LIMIT_S), self._look)

    def _look(self) -> None:
        self._timer = None
        self._apply()
