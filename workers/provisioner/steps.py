"""One provisioning, step by step. Each step says what shall be, looks, and changes only what
differs: killed anywhere and run again, the result is the same. The order is that of `plan.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from waagent.distro import host_name, root_password, sshd_later
from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError
from waagent.workers.provisioner import (
    custom_data,
    dvd,
    host_keys,
    identity,
    plan,
    ssh_keys,
    sshd,
    sudo,
    users,
)
from waagent.workers.provisioner.health_report import STARTING, Platform
from waagent.workers.provisioner.logins import Logins, plan_logins, refuse_without_login
from waagent.workers.provisioner.notes import read_notes, write_notes
from waagent.workers.provisioner.plan import Options, PasswdEntry
from waagent.workers.provisioner.provisioning_error import Refused
from waagent.workers.provisioner.ssh_keys import DeployError
from waagent.workers.provisioner.user_names import check_user_name
from waagent.workers.runtime import Worker

if TYPE_CHECKING:
    from waagent.protocol.ovf import ProvisioningRequest

_STARTING_LIMIT_S = 10.0  # the platform shall hear it first, but an absent one holds nothing up
_CERTIFICATES_LIMIT_S = 60.0
_HOST_KEY_LOOK_S = 0.1
_PASSWORD_MAX = 511  # PAM hands on no longer one


class Provisioning:
    """One VM, one request. Invariant: the marker is written last, after everything that it stands
    for.
    """

    def __init__(
        self,
        worker: Worker,
        paths: Paths,
        family: Family,
        options: Options,
        platform: Platform,
        vm_id: str,
    ) -> None:
        self._worker, self._paths, self._family, self._options = worker, paths, family, options
        self._platform, self._vm_id = platform, vm_id
        self._account: PasswdEntry | None = None
        self._logins = Logins()
        self._keys = 0
        self._host_key_making: host_keys.Making | None = None

    def carry_out(self) -> str:
        """From the DVD to the marker; the summary. Raises ProvisioningError, DocumentError,
        ToolError, OSError.
        """
        worker = self._worker
        identity.make_library(self._paths)
        try:
            self._begin_host_keys()
            worker.supervisor.doing("reading the boot DVD")
            disc = dvd.find_disc(self._paths, self._options.mount_point, worker.run, worker.log)
            request = disc.request
            self._refuse(request)
            self._keep(disc.document)
            self._platform.say(STARTING)
            self._platform.wait_accepted(_STARTING_LIMIT_S)
            for what, step in self._steps(request):
                worker.supervisor.doing(what)
                step(request)
        finally:
            if self._host_key_making is not None:
                self._host_key_making.abandon()
        worker.supervisor.doing("writing the marker")
        identity.write_marker(self._paths, self._vm_id)
        write_notes(self._paths, {"user": request.user_name, "host_name": request.host_name})
        problem = dvd.eject(disc.device)
        worker.log.debug("ejected %s %s", disc.device, problem or "well")
        return f"{request.user_name} on {request.host_name}"

    def _steps(
        self, request: ProvisioningRequest
    ) -> list[tuple[str, Callable[[ProvisioningRequest], None]]]:
        return [
            (f"setting the host name {request.host_name}", self._host_name),
            (f"creating user {request.user_name}", self._user),
            ("allowing sudo", self._sudo),
            ("deploying SSH keys", self._ssh_keys),
            ("making SSH host keys", self._host_keys),
            ("configuring sshd", self._sshd),
            ("saving custom data", self._custom_data),
            ("locking the root password", self._root_password),
            ("reloading sshd", self._reload),
        ]

    def _refuse(self, request: ProvisioningRequest) -> None:
        """Everything that must not be done is found before anything is done."""
        if request.preprovisioned:
            raise Refused(
                "this is a VM of a pool (PreprovisionedVm)",
                "ovf-env.xml",
                "provision pool VMs with cloud-init",
            )
        name = check_user_name(request.user_name, allow_system_user=self._options.allow_system_user)
        try:
            login_defs: str | None = self._paths.under("/etc/login.defs").read_text(
                "utf-8", "replace"
            )
        except OSError:
            login_defs = None
        present = users.find_account(self._paths, name)
        plan.refuse_system_user(
            name, present, plan.uid_minimum(login_defs, self._family), self._family, self._options
        )
        if request.password is not None and len(request.password.reveal().encode()) > _PASSWORD_MAX:
            raise Refused(
                f"the password has more than {_PASSWORD_MAX} bytes",
                "ovf-env.xml",
                "nobody could log in by it, create the VM with a shorter one",
            )
        self._logins = plan_logins(request)
        for finding in request.findings:
            self._worker.log.warning("boot DVD: %s", finding)
        for problem in self._logins.problems:
            self._worker.log.warning(
                "a public key is not deployed: %s: ovf-env.xml: send it as a line of"
                " authorized_keys",
                problem,
            )

    def _keep(self, document: bytes) -> None:
        """The redacted copy, and a first sign whether the disk takes anything at all (trap 12)."""
        from waagent.protocol.ovf import FILE_NAME, redact_ovf

        write_atomic(self._paths.library / FILE_NAME, redact_ovf(document), mode=0o600)

    def _host_name(self, request: ProvisioningRequest) -> None:
        """A name that cannot be set is a warning: the VM is as good without it."""
        try:
            name = plan.host_name_of(request.host_name)
            host_name.set_host_name(self._paths, self._family, self._worker.run, name)
            host_name.resolve_locally(self._paths, name)
        except (Refused, ToolError, OSError) as error:
            self._worker.log.warning(
                "the host name is not set, it stays %s: %s", socket.gethostname(), error
            )
            return
        self._worker.log.info("set host name %s", name)

    def _user(self, request: ProvisioningRequest) -> None:
        run, log = self._worker.run, self._worker.log
        self._account = users.ensure_account(self._paths, self._family, run, request.user_name, log)
        users.set_password(
            self._paths, self._family, self._options, run, request.user_name, request.password, log
        )

    def _sudo(self, request: ProvisioningRequest) -> None:
        has_password = request.password is not None
        sudo.allow_sudo(
            self._paths,
            self._family,
            self._options,
            self._worker.run,
            request.user_name,
            has_password,
        )

    def _begin_host_keys(self) -> None:
        folder = self._paths.under(self._options.ssh_folder)
        has_some = host_keys.has_host_keys(folder)
        is_done = has_some and read_notes(self._paths).get("host_keys_made_for") == self._vm_id
        if not is_done and (self._options.regenerate_host_keys or not has_some):
            self._host_key_making = host_keys.Making(folder, self._options.host_key_type)

    def _host_keys(self, request: ProvisioningRequest) -> None:
        making, self._host_key_making = self._host_key_making, None
        if making is None:
            return
        looks = self._worker.loop.every(_HOST_KEY_LOOK_S, lambda: None)
        try:
            self._worker.wait(making.is_over, host_keys.KEYGEN_LIMIT_S, "making SSH host keys")
        finally:
            looks.cancel()
        if making.take_over(self._worker.log):
            notes = read_notes(self._paths)
            write_notes(self._paths, {**notes, "host_keys_made_for": self._vm_id})

    def _ssh_keys(self, request: ProvisioningRequest) -> None:
        assert self._account is not None
        problems = list(self._logins.problems)
        self._keys = self._deploy(self._logins.given, problems)
        self._await_certificates(
            {fingerprint for _, fingerprint in self._logins.by_certificate}
            | {pair.fingerprint for pair in request.key_pairs}
        )
        lines = []
        for path, fingerprint in self._logins.by_certificate:
            try:
                lines.append((path, ssh_keys.openssh_line(self._paths, fingerprint)))
            except DeployError as error:
                problems.append(self._warned(error))
        self._keys += self._deploy(lines, problems)
        if request.keys_sent and not self._keys:
            refuse_without_login(request, problems)
        for pair in request.key_pairs:
            base, run = self._options.home_base, self._worker.run
            try:
                ssh_keys.deploy_key_pair(
                    self._paths, run, self._account, base, pair.path, pair.fingerprint
                )
            except DeployError as error:
                self._warned(error)

    def _deploy(self, keys: Iterable[tuple[str, str]], problems: list[str]) -> int:
        """How many of ``keys`` are where sshd finds them; what went wrong is added."""
        assert self._account is not None
        run, log, base = self._worker.run, self._worker.log, self._options.home_base
        done = ssh_keys.deploy_public_keys(self._paths, run, self._account, base, keys, log)
        for problem in done.problems:
            problems.append(self._warned(problem))
        return done.count

    def _warned(self, problem: object) -> str:
        self._worker.log.warning("%s", problem)
        return str(problem)

    def _await_certificates(self, fingerprints: set[str]) -> None:
        missing = frozenset(
            one for one in fingerprints if not (self._paths.library / f"{one}.crt").exists()
        )
        if missing:
            self._platform.wait_certificates(missing, _CERTIFICATES_LIMIT_S)

    def _sshd(self, request: ProvisioningRequest) -> None:
        login = plan.wants_password_login(
            request.disable_password_login, request.password is not None, self._keys
        )
        sshd.configure_sshd(
            sshd.Sshd(
                self._paths,
                self._options.ssh_folder,
                self._worker.run,
                self._worker.log,
                request.user_name,
                self._family.edits_sshd,
            ),
            sshd.wanted_settings(login, self._options.client_alive_s),
        )

    def _custom_data(self, request: ProvisioningRequest) -> None:
        file = custom_data.save_custom_data(
            self._paths, request.custom_data, self._options, self._worker.log
        )
        if file is not None:
            custom_data.plan_execution(self._paths, file)

    def _root_password(self, request: ProvisioningRequest) -> None:
        if self._options.delete_root_password:
            root_password.lock_root_password(
                self._paths, self._family, self._options.shadow, self._worker.run
            )

    def _reload(self, request: ProvisioningRequest) -> None:
        reload_sshd(self._worker, self._paths, self._family)
        if not request.provision_guest_agent:
            write_atomic(self._paths.library / "disable_agent", b"", mode=0o600)
            self._worker.log.warning(
                "ProvisionGuestAgent is false: %s written", self._paths.library / "disable_agent"
            )


def reload_sshd(worker: Worker, paths: Paths, family: Family) -> None:
    """Have sshd read its configuration again, and say so."""
    try:
        done = sshd_later.reload_sshd(paths, family, worker.run)
    except ToolError as error:
        worker.log.warning(
            "sshd was not reloaded, it reads its configuration at its next start: %s", error
        )
        return
    worker.log.info("sshd reads its configuration again: %s", done or "it does not run yet")
