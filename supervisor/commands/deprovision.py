"""`waagent -deprovision` and `-deprovision+user`: make a VM ready to be imaged. `--plan` says what
would be done, `--verify` what an image must not contain; both change nothing.

Exit status: 0 done (a step that fails is a warning: scripts go on with `&&`), 1 nothing was done,
or a secret was left behind, or `--verify` found something.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence

from waagent.distro.distributions import Family, family_of
from waagent.distro.paths import Paths
from waagent.protocol.configuration.loading import Loaded
from waagent.supervisor.commands import deprovision_actions as actions
from waagent.supervisor.commands import deprovision_plan as plan
from waagent.supervisor.commands.arguments import Line
from waagent.supervisor.commands.deprovision_plan import Step
from waagent.supervisor.commands.deprovision_verify import leftovers

_WORDS = {
    plan.MARK: "the agent will not provision before the next boot",
    plan.STOP: "the waagent service will be stopped",
    plan.NAME: f"the host name will be set to {plan.NO_NAME}",
    plan.PASSWORD: "the root password will be disabled, nobody can log in as root by password",
}
_SHOWN = 6


def deprovision(line: Line, paths: Paths, loaded: Loaded, *, with_user: bool) -> int:
    """Carry out the command; its exit status."""
    actions.leave_mask(paths)
    family = family_of(paths)
    if "verify" in line.flags:
        return _verify(paths, family, loaded, is_json="json" in line.flags)
    user = plan.user_of(paths) if with_user else ""
    steps = plan.plan_steps(paths, family, plan.Wanted(loaded.values, with_user, user))
    if "plan" in line.flags:
        _print_plan(steps, is_json="json" in line.flags)
        return 0
    if "force" not in line.flags and not _is_agreed(steps):
        return 1
    shadow = str(loaded.values.get("OS.PasswordPath") or "")
    return _apply(actions.System(paths, family, shadow), steps)


def _apply(system: actions.System, steps: Sequence[Step]) -> int:
    """Do everything; an interruption now would leave an image that is neither."""
    signal.signal(signal.SIGINT, lambda *_: _say("deprovisioning goes on, it cannot be undone"))
    os.chdir("/")  # the folder we were called in may be about to go
    left = False
    for step in steps:
        try:
            actions.carry_out(system, step)
        except actions.NotDone as error:
            left = left or step.is_secret
            weight = "a secret may be left" if step.is_secret else "warning"
            _say(f"{weight}: {step.action} {step.target}: {error}")
    os.sync()
    if left:
        _say("not everything was removed: waagent -deprovision --verify lists what is left")
    return 1 if left else 0


def _is_agreed(steps: Sequence[Step]) -> bool:
    if not sys.stdin.isatty():
        _say("needs -force: there is no terminal to ask on, nothing was done: see --plan")
        return False
    for text in _warnings(steps):
        print(f"WARNING! {text}.")
    try:
        answer = input("Do you want to proceed (y/n)? ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer[:1] in ("y", "Y"):
        return True
    _say("nothing was done")
    return False


def _warnings(steps: Sequence[Step]) -> list[str]:
    """One line for each kind of thing, as people know them."""
    texts = [_WORDS[step.action] for step in steps if step.action in _WORDS]
    for step in steps:
        if step.action == plan.USER:
            texts.append(f"the account {step.target} and its entire home directory will be deleted")
        elif step.action == plan.KEEP:
            texts.append(f"not removed: {step.target}: {step.about}")
    for about in dict.fromkeys(step.about for step in steps if step.action in _FILES):
        names = [step.target for step in steps if step.about == about and step.action in _FILES]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        texts.append(f"{about} will be deleted: {' '.join(names[:_SHOWN])}{more}")
    return texts


_FILES = (plan.REMOVE, plan.EMPTY, plan.TRUNCATE, plan.SUDOERS, plan.SSHD, plan.HOSTS, plan.RUN)


def _print_plan(steps: Sequence[Step], *, is_json: bool) -> None:
    if is_json:
        rows = [{**step._asdict()} for step in steps]
        print(json.dumps({"schema": 1, "steps": rows}, indent=1))
        return
    for step in steps:
        print(f"{step.action:<18} {step.target}  ({step.about})")


def _verify(paths: Paths, family: Family, loaded: Loaded, *, is_json: bool) -> int:
    found = leftovers(paths, family, loaded.values)
    if is_json:
        print(json.dumps({"schema": 1, "leftovers": [item._asdict() for item in found]}, indent=1))
    else:
        for item in found:
            print(f"{item.path}: {item.about}")
        if not found:
            print("nothing found that an image must not contain")
    return 1 if found else 0


def _say(text: str) -> None:
    print(f"waagent: {text}", file=sys.stderr)
