"""What a take-over will do, in lines, and the settings that keep a predecessor's meaning. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from waagent.supervisor.commands.predecessor import Handler, Left

PREDECESSOR_DEFAULTS = {
    "Provisioning.RegenerateSshHostKeyPair": "n",
    "Provisioning.MonitorHostName": "n",
    "ResourceDisk.Format": "n",
    "ResourceDisk.Filesystem": "ext3",
    "LBProbeResponder": "n",
    "OS.RootDeviceScsiTimeout": "None",
}
"""What an absent key meant to the agents from 2.1 to 2.15, where it means something else to us."""


def kept_settings(text: str) -> str:
    """`conf.d/10-taken-over.conf` for a kept waagent.conf; empty when nothing is absent there."""
    given = {line.split("=", 1)[0].strip() for line in text.splitlines() if "=" in line}
    absent = {name: value for name, value in PREDECESSOR_DEFAULTS.items() if name not in given}
    if not absent:
        return ""
    lines = [
        "# Written when this agent took over: waagent.conf does not name these, and the agent",
        "# before took them so. This file is read after waagent.conf: change or remove them here.",
    ]
    return "\n".join([*lines, *(f"{name}={value}" for name, value in absent.items())]) + "\n"


def lines_of(left: Left, settings: str, drop_ins: Iterable[str]) -> list[str]:
    """Everything that will be done, one thing a line."""
    said = []
    if left.unit:
        agents = [str(one.pid) for one in left.processes if one.is_agent]
        said.append(f"stop {left.unit} (pid {' '.join(agents) or '?'}), and disable it")
    if left.is_provisioned:
        host_name = f", host name {left.host_name}" if left.host_name else ""
        said.append(f"keep: the VM is provisioned, nothing is provisioned again{host_name}")
    if left.has_transport_key:
        said.append("keep the transport key and certificate, as transport/TransportPrivate.pem")
    said += [_of_handler(left, handler) for handler in left.handlers]
    if settings:
        names = [line.split("=")[0] for line in settings.splitlines() if line[:1] != "#"]
        said.append(f"write conf.d/10-taken-over.conf: {' '.join(names)}")
    said += [f"remove {file}: the agent before made it" for file in left.files]
    said += [f"leave {name}: it keeps its effect" for name in drop_ins]
    said.append("remove the firewall rules for the WireServer that the agent before made, if any")
    said.append("stamp the state folder as ours")
    return said


def _of_handler(left: Left, handler: Handler) -> str:
    folder = f"{handler.name}-{handler.version}"
    states = ", ".join(
        f"{name + ' ' if name else ''}seq {sequence} {state}"
        for name, sequence, state in handler.extensions
    )
    pids = [str(one.pid) for one in left.processes if one.handler == folder]
    head = f"handler {handler.name} {handler.version} {handler.state} {states}".rstrip()
    if handler.state not in ("Enabled", "Installed"):
        return f"{head}: as the goal state says"
    if not left.unit:
        return f"{head}: ENABLE once, as after a boot: its processes ended with the old service"
    if not handler.is_settled and pids:
        return f"{head}: wait for its command (pid {' '.join(pids)}), then as its status says"
    if not handler.is_settled:
        return f"{head}: ENABLE, its last one has not said how it ended"
    stays = f", pid {' '.join(pids)} goes on in its slice" if pids else ""
    return f"{head}: not run again{stays}"
