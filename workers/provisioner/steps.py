"""One provisioning, step by step. Each step says what shall be, looks, and changes only what
differs: killed anywhere and run again, the result is the same. Order: spec/provisioning.md §4.3
Rule; host keys come before sshd's configuration, since `sshd -t` wants a key to be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent.distro.distributions import Family
from waagent.distro.files import write_atomic
from waagent.distro.paths import Paths
from waagent.workers.provisioner import (
    custom_data,
    dvd,
    host_keys,
    hostname,
    identity,
    plan,
    ssh_keys,
    sshd,
    sudo,
    users,
)
from waagent.workers.provisioner.health_report import STARTING, Platform
from waagent.workers.provisioner.notes import read_notes, write_notes
from waagent.workers.provisioner.plan import Options, PasswdEntry
from waagent.workers.provisioner.provisioning_error import ProvisioningError, Refused
from waagent.workers.provisioner.user_names import check_user_name
from waagent.workers.runtime import Worker

if TYPE_CHECKING:
    from waagent.protocol.ovf import ProvisioningRequest

_STARTING_LIMIT_S = 10.0  # the platform shall hear it first, but an absent one holds nothing up
_CERTIFICATES_LIMIT_S = 60.0


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
        self._keys = 0

    def carry_out(self) -> str:
        """From the DVD to the marker; the summary. Raises ProvisioningError, DocumentError,
        ToolError, OSError.
        """
        worker = self._worker
        worker.supervisor.doing("reading the boot DVD")
        identity.make_library(self._paths)
        disc = dvd.find_disc(self._paths, self._options.mount_point, worker.run, worker.log)
        request = disc.request
        self._refuse(request)
        self._keep(disc.document)
        self._platform.say(STARTING)
        self._platform.wait_accepted(_STARTING_LIMIT_S)
        for what, step in self._steps(request):
            worker.supervisor.doing(what)
            step(request)
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
            ("making SSH host keys", self._host_keys),
            ("deploying SSH keys", self._ssh_keys),
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
        plan.check_host_name(request.host_name)
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
        for key in request.public_keys:
            if key.value:
                plan.check_public_key(key.value)

    def _keep(self, document: bytes) -> None:
        """The redacted copy, and a first sign whether the disk takes anything at all (trap 12)."""
        from waagent.protocol.ovf import FILE_NAME, redact_ovf

        write_atomic(self._paths.library / FILE_NAME, redact_ovf(document), mode=0o600)

    def _host_name(self, request: ProvisioningRequest) -> None:
        hostname.set_host_name(self._paths, self._family, self._worker.run, request.host_name)
        self._worker.log.info("set host name %s", request.host_name)

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

    def _host_keys(self, request: ProvisioningRequest) -> None:
        folder = self._paths.under(self._options.ssh_folder)
        notes = read_notes(self._paths)
        is_done = notes.get("host_keys_made_for") == self._vm_id and host_keys.has_host_keys(folder)
        if is_done or not (
            self._options.regenerate_host_keys or not host_keys.has_host_keys(folder)
        ):
            return
        if host_keys.renew_host_keys(
            folder, self._options.host_key_type, self._worker.run, self._worker.log
        ):
            write_notes(self._paths, {**notes, "host_keys_made_for": self._vm_id})

    def _ssh_keys(self, request: ProvisioningRequest) -> None:
        assert self._account is not None
        run, log, base = self._worker.run, self._worker.log, self._options.home_base
        given = [
            (key.path, plan.check_public_key(key.value)) for key in request.public_keys if key.value
        ]
        self._keys = ssh_keys.deploy_public_keys(self._paths, run, self._account, base, given, log)
        by_certificate = [key for key in request.public_keys if not key.value]
        self._await_certificates(
            {key.fingerprint for key in by_certificate}
            | {pair.fingerprint for pair in request.key_pairs}
        )
        lines = [
            (key.path, ssh_keys.openssh_line(self._paths, key.fingerprint))
            for key in by_certificate
        ]
        self._keys += ssh_keys.deploy_public_keys(self._paths, run, self._account, base, lines, log)
        for pair in request.key_pairs:
            ssh_keys.deploy_key_pair(
                self._paths, run, self._account, base, pair.path, pair.fingerprint
            )

    def _await_certificates(self, fingerprints: set[str]) -> None:
        missing = frozenset(
            one for one in fingerprints if not (self._paths.library / f"{one}.crt").exists()
        )
        if missing:
            self._platform.wait_certificates(missing, _CERTIFICATES_LIMIT_S)
        still = [
            one for one in sorted(missing) if not (self._paths.library / f"{one}.crt").exists()
        ]
        if still:
            where = f"no certificate {', '.join(still)} in the goal state"
            raise ProvisioningError(
                "Failed to deploy public key (0x09)", where, "none needed, tried again"
            )

    def _sshd(self, request: ProvisioningRequest) -> None:
        if not self._family.edits_sshd:
            return
        login = plan.wants_password_login(
            request.disable_password_login, request.password is not None, self._keys
        )
        lines = sshd.directives(login, self._options.client_alive_s)
        sshd.configure_sshd(
            self._paths, self._options.ssh_folder, lines, self._worker.run, self._worker.log
        )

    def _custom_data(self, request: ProvisioningRequest) -> None:
        file = custom_data.save_custom_data(
            self._paths, request.custom_data, self._options, self._worker.log
        )
        if file is not None:
            custom_data.plan_execution(self._paths, file)

    def _root_password(self, request: ProvisioningRequest) -> None:
        if self._options.delete_root_password:
            users.delete_root_password(self._paths, self._family, self._options, self._worker.run)

    def _reload(self, request: ProvisioningRequest) -> None:
        done = sshd.reload_sshd(self._paths, self._family, self._worker.run, self._worker.log)
        self._worker.log.info(
            "sshd reads its configuration again: %s", done or "it does not run yet"
        )
        if not request.provision_guest_agent:
            write_atomic(self._paths.library / "disable_agent", b"", mode=0o600)
            self._worker.log.warning(
                "ProvisionGuestAgent is false: %s written", self._paths.library / "disable_agent"
            )
