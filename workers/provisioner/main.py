"""Makes a fresh image this customer's VM, once, and tells the platform Ready at each start.

Asks fabric_client to report health and the host key's fingerprint, and follows its goal state where
keys come as certificates. Is asked nothing. Privilege: root, with what making accounts, keys and
mounts takes. Killed at any moment it begins again and comes to the same result: the marker
`<lib>/provisioned` is written last, each step looks before it changes. Its tools run in a group of
their own and do not end sshd with them.
"""

from __future__ import annotations

import datetime

from waagent import __version__
from waagent.distro import boot_marks, sshd_later
from waagent.distro.distributions import Family, describe_unknown, family_of
from waagent.distro.files import FileError, write_atomic
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError
from waagent.protocol.base.backoff import next_pause_s
from waagent.protocol.base.input_errors import DocumentError
from waagent.workers.provisioner import identity, plan, role_state
from waagent.workers.provisioner.health_report import FAILURE_LIMIT, READY, Platform, failed
from waagent.workers.provisioner.notes import read_notes
from waagent.workers.provisioner.plan import Options
from waagent.workers.provisioner.provisioning_error import NoRequest, ProvisioningError
from waagent.workers.runtime import Worker

PAUSES_S = (5.0, 5.0, 5.0, 5.0, 10.0, 20.0, 30.0)  # the DVD may be attached late
_LATE_TRIES = 4  # so often the DVD may be missing before scripts that wait are told so
_FINGERPRINT_LIMIT_S = 20.0
_CUSTOM_DATA_LOOK_S = 0.5
_CUSTOM_DATA_WAIT_S = 300.0
_CLOUD_INIT_WAIT_S = 300.0
_CLOUD_INIT_LIMIT_S = 1800.0
_BEFORE_READY_S = 600.0  # the platform gives up a VM after 20 minutes


class GaveUp(Exception):
    """The time for provisioning is over; the text says what failed last."""


def main(worker: Worker) -> None:
    """Provision unless the marker says that it was done; tell the platform; carry out custom
    data.
    """
    worker.supervisor.ready()
    paths = worker.paths.configured(worker.configuration)
    options = plan.read_options(worker.configuration)
    platform = Platform(worker)
    vm_id = identity.read_vm_id(paths, worker.run)
    marker = identity.judge_marker(identity.read_marker(paths), vm_id)
    if marker == identity.ABSENT and boot_marks.deprovisioned(paths).exists():
        worker.log.info("deprovisioned: nothing is done until the next boot")
        worker.supervisor.done("deprovisioned, until the next boot")
        return
    worker.supervisor.tell(provisioned=marker != identity.ABSENT)
    if marker == identity.ABSENT:
        try:
            summary, reports_ready = provision_until_done(worker, paths, options, platform, vm_id)
        except GaveUp as error:
            give_up(worker, paths, platform, str(error))
            return
        worker.supervisor.tell(failure=None)
        tell_hypervisor(worker, paths, vm_id, "")
        tell_host_key(worker, paths, options, platform)
        custom_data_for(worker, paths, _BEFORE_READY_S)
    else:
        summary, reports_ready = recognise(worker, paths, marker, vm_id), True
        leave_sshd_to_others(worker, paths)
    worker.supervisor.tell(provisioned=True)
    if reports_ready:
        role_state.tell_consumer(worker, paths)
        platform.say(READY)
        platform.wait_accepted()
        worker.supervisor.tell(health="Ready")
    while not custom_data_for(worker, paths, _CUSTOM_DATA_WAIT_S):
        continue
    if marker != identity.ABSENT:
        tell_host_key(worker, paths, options, platform)
    worker.supervisor.done(summary)


def give_up(worker: Worker, paths: Paths, platform: Platform, text: str) -> None:
    """The VM goes on without being provisioned: extensions may repair it; the next boot tries
    again.
    """
    worker.log.error("provisioning is given up until the next boot: %s", text)
    platform.wait_accepted(_FINGERPRINT_LIMIT_S)
    write_atomic(boot_marks.provisioning_failed(paths), text.encode("utf-8"), mode=0o644)
    worker.supervisor.done(f"failed: {text}")


def leave_sshd_to_others(worker: Worker, paths: Paths) -> None:
    """Options that others have set since we provisioned are theirs."""
    given = sshd_later.make_way(paths)
    if given:
        worker.log.info("sshd: %s was set by others since, our value is removed", " ".join(given))
        from waagent.workers.provisioner.steps import reload_sshd

        reload_sshd(worker, paths, family_of(paths))


def tell_hypervisor(worker: Worker, paths: Paths, vm_id: str, failure: str) -> None:
    """The second way to the platform; it is there or not, and holds nothing up."""
    from waagent.workers.provisioner import kvp

    now = datetime.datetime.now(datetime.timezone.utc)
    text = kvp.report(vm_id, f"waagent/{__version__}", failure, now)
    try:
        is_told = kvp.tell_host(paths, text, boot_marks.boot_time())
    except OSError as error:
        worker.log.warning(
            "the hypervisor was not told: %s: %s: none needed, the platform is told over the"
            " network too",
            kvp.POOL,
            error.strerror,
        )
        return
    worker.log.debug("told the hypervisor=%s %s", is_told, kvp.KEY)


def recognise(worker: Worker, paths: Paths, marker: str, vm_id: str) -> str:
    """This VM was provisioned before, or is a copy of one that was: cached state of another VM goes
    (§9.1); the summary.
    """
    if marker == identity.FOREIGN:
        removed = identity.clean_cached_state(paths)
        worker.log.warning(
            "VM is provisioned, but its unique id has changed: removed %d files of cached state",
            len(removed),
        )
    if marker != identity.CURRENT:
        identity.write_marker(paths, vm_id)
    notes = read_notes(paths)
    if notes.get("user") and notes.get("host_name"):
        return f"{notes['user']} on {notes['host_name']}, earlier"
    return "provisioned earlier"


def provision_until_done(
    worker: Worker, paths: Paths, options: Options, platform: Platform, vm_id: str
) -> tuple[str, bool]:
    """Try until it is done; the summary, and whether Ready is ours to report. Each new failure is
    told to the platform. Raises GaveUp when the time is over.
    """
    said = ""
    tries = 0
    family = family_of(paths)
    if family.name == "default":
        worker.log.info("%s", describe_unknown(paths))
    end = worker.loop.now() + options.time_limit_s
    while True:
        try:
            return provision(worker, paths, family, options, platform, vm_id)
        except (ProvisioningError, DocumentError, ToolError, FileError, OSError) as error:
            text = str(error)
            is_final = not isinstance(error, NoRequest)
        tries += 1
        if is_final or tries >= _LATE_TRIES:
            worker.supervisor.tell(failure=text[:FAILURE_LIMIT])
        if text != said:
            said = text
            worker.log.error("provisioning failed: %s", text)
            platform.say(failed(text))
            worker.supervisor.tell(health="NotReady")
            tell_hypervisor(worker, paths, vm_id, text)
        pause_s = min(next_pause_s(tries, PAUSES_S), end - worker.loop.now())
        if pause_s > 0:
            worker.wait(lambda: False, pause_s, f"failed: {text}")
        if worker.loop.now() >= end:
            raise GaveUp(text)


def provision(
    worker: Worker, paths: Paths, family: Family, options: Options, platform: Platform, vm_id: str
) -> tuple[str, bool]:
    """One try, by whom it falls to."""
    from waagent.workers.provisioner import cloud_init

    who = plan.who_provisions(options, cloud_init.is_enabled(paths, worker.run))
    if who == plan.NOBODY:
        identity.make_library(paths)
        identity.write_marker(paths, vm_id)
        worker.log.info("provisioning is disabled: image users, keys and host name stay")
        return "provisioning disabled", True
    if who == plan.CLOUD_INIT:
        return wait_for_cloud_init(worker, paths, options, vm_id), False
    from waagent.workers.provisioner.steps import Provisioning

    return Provisioning(worker, paths, family, options, platform, vm_id).carry_out(), True


def wait_for_cloud_init(worker: Worker, paths: Paths, options: Options, vm_id: str) -> str:
    """Touch nothing; note when cloud-init is done. It reports to the platform itself (§1.4)."""
    from waagent.workers.provisioner import cloud_init, host_keys

    identity.make_library(paths)
    ssh = paths.under(options.ssh_folder)
    looks = worker.loop.every(1.0, lambda: None)
    try:
        for is_there, what in (
            (lambda: cloud_init.document(paths) is not None, "cloud-init (ovf-env.xml)"),
            (
                lambda: host_keys.fingerprint_of(ssh, options.host_key_type) is not None,
                "SSH host keys",
            ),
        ):
            begun = worker.loop.now()
            while not worker.wait(is_there, _CLOUD_INIT_WAIT_S, f"waiting for {what}"):
                waited_s = worker.loop.now() - begun
                if waited_s > _CLOUD_INIT_LIMIT_S:
                    worker.faults.seen(
                        "cloud-init",
                        f"{what} has not come for {waited_s:.0f} s: cloud-init provisions this VM:"
                        " look at cloud-init status --long",
                    )
    finally:
        looks.cancel()
    identity.write_marker(paths, vm_id)
    return "by cloud-init"


def tell_host_key(worker: Worker, paths: Paths, options: Options, platform: Platform) -> None:
    """Post the host key's fingerprint and log it as `ssh` shows it."""
    from waagent.workers.provisioner import host_keys

    found = host_keys.fingerprint_of(paths.under(options.ssh_folder), options.host_key_type)
    if found is None:
        worker.log.info("no SSH host key, no fingerprint to report")
        return
    accepted = platform.tell_fingerprint(found.md5, _FINGERPRINT_LIMIT_S)
    worker.log.info(
        "SSH host key %s file=%s reported=%s",
        found.sha256,
        found.file,
        "yes" if accepted else "later",
    )


def custom_data_for(worker: Worker, paths: Paths, limit_s: float) -> bool:
    """Start custom data that is planned and wait for its end, ``limit_s`` at most; its end is told
    once. Whether nothing is left to wait for; it outlives us.
    """
    if not (paths.library / "custom-data").is_dir():
        return True
    from waagent.workers.provisioner import custom_data

    if custom_data.is_settled(paths):
        return True
    custom_data.start_execution(paths)
    looks = worker.loop.every(_CUSTOM_DATA_LOOK_S, lambda: None)
    try:
        if not worker.wait(lambda: custom_data.is_over(paths), limit_s, "custom data is running"):
            return False
    finally:
        looks.cancel()
    custom_data.tell_end(paths, worker.log)
    custom_data.note_told(paths)
    return True
