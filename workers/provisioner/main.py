"""Makes a fresh image this customer's VM, once, and tells the platform Ready at each start.

Asks fabric_client to report health and the host key's fingerprint, and follows its goal state where
keys come as certificates. Is asked nothing. Privilege: root, with what making accounts, keys and
mounts takes. Killed at any moment it begins again and comes to the same result: the marker
`<lib>/provisioned` is written last, each step looks before it changes. Its tools run in a group of
their own and do not end sshd with them.
"""

from __future__ import annotations

from waagent.distro.distributions import Family, family_of
from waagent.distro.files import FileError
from waagent.distro.paths import Paths
from waagent.distro.run import ToolError
from waagent.protocol.base.backoff import next_pause_s
from waagent.protocol.base.input_errors import DocumentError
from waagent.workers.provisioner import identity, plan
from waagent.workers.provisioner.health_report import READY, Platform, failed
from waagent.workers.provisioner.notes import read_notes
from waagent.workers.provisioner.plan import Options
from waagent.workers.provisioner.provisioning_error import ProvisioningError
from waagent.workers.runtime import Worker

PAUSES_S = (5.0, 5.0, 5.0, 5.0, 10.0, 20.0, 30.0)  # the DVD may be attached late
_FINGERPRINT_LIMIT_S = 20.0
_CUSTOM_DATA_LOOK_S = 0.5
_CUSTOM_DATA_WAIT_S = 300.0


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
    worker.supervisor.tell(provisioned=marker != identity.ABSENT)
    if marker == identity.ABSENT:
        summary, reports_ready = provision_until_done(worker, paths, options, platform, vm_id)
        tell_host_key(worker, paths, options, platform)
        execute_custom_data(worker, paths)
    else:
        summary, reports_ready = recognise(worker, paths, marker, vm_id), True
    worker.supervisor.tell(provisioned=True)
    if reports_ready:
        platform.say(READY)
        platform.wait_accepted()
        worker.supervisor.tell(health="Ready")
    if marker != identity.ABSENT:
        execute_custom_data(worker, paths)
        tell_host_key(worker, paths, options, platform)
    worker.supervisor.done(summary)


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
    told to the platform.
    """
    said = ""
    tries = 0
    family = family_of(paths)
    while True:
        try:
            return provision(worker, paths, family, options, platform, vm_id)
        except (ProvisioningError, DocumentError, ToolError, FileError, OSError) as error:
            text = str(error)
        if text != said:
            said = text
            worker.log.error("provisioning failed: %s", text)
            platform.say(failed(text))
        tries += 1
        worker.wait(lambda: False, next_pause_s(tries, PAUSES_S), f"failed: {text}")


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
        while cloud_init.document(paths) is None:
            worker.wait(
                lambda: cloud_init.document(paths) is not None,
                300.0,
                "waiting for cloud-init (ovf-env.xml)",
            )
        while host_keys.fingerprint_of(ssh, options.host_key_type) is None:
            worker.wait(
                lambda: host_keys.fingerprint_of(ssh, options.host_key_type) is not None,
                300.0,
                "waiting for SSH host keys",
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


def execute_custom_data(worker: Worker, paths: Paths) -> None:
    """Start custom data that is planned, wait for its end, without a limit, and tell it once; it
    outlives us.
    """
    if not (paths.library / "custom-data").is_dir():
        return
    from waagent.workers.provisioner import custom_data

    if custom_data.is_settled(paths):
        return
    custom_data.start_execution(paths)
    looks = worker.loop.every(_CUSTOM_DATA_LOOK_S, lambda: None)
    try:
        while not worker.wait(
            lambda: custom_data.is_over(paths), _CUSTOM_DATA_WAIT_S, "custom data is running"
        ):
            continue
    finally:
        looks.cancel()
    worker.log.info("%s", custom_data.describe(paths))
    custom_data.note_told(paths)
