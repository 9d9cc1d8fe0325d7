"""What is done in a handler's own folders, each in a process of its own with a deadline
(file_jobs.py): a mount that hangs there, a full disk or a file of nonsense costs that handler only.

A job is `{"kind", "library", "logs", "name", …}`, its answer `{}` or what is documented below, or
`{"error": text, "code": number}`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.protocol.base import records
from waagent.protocol.base.log import PROCESS
from waagent.protocol.bus import topics
from waagent.protocol.handler import handler_errors
from waagent.protocol.handler.handler_errors import HandlerError
from waagent.workers.extension_runner import handler_files, prerequisites
from waagent.workers.extension_runner.command_log import append_log
from waagent.workers.extension_runner.handler_files import Folders, Place

Job = Mapping[str, Any]


def look(job: Job) -> dict[str, Any]:
    """`{"versions": {version: word of its HandlerState}}`."""
    return {"versions": handler_files.versions_present(Path(job["library"]), job["name"])}


def prepare(job: Job) -> dict[str, Any]:
    """All that a command of ``version`` expects; `{"manifest"}` is its manifest's.

    ``settings`` (a map, or null for a handler without) are written into ``target``'s folder when
    ``writes_settings``; ``old``, when not empty, is the version whose memory it gets.
    """
    folders, target = _folders(job, job["version"]), _folders(job, job["target"])
    manifest = prerequisites.read_manifest(folders.base)
    if job["is_multi"] and not manifest.supports_multiple:
        raise HandlerError(
            "Ran into config errors: the goal state has several extensions",
            job["name"],
            "the handler's manifest lacks supportsMultipleExtensions",
        )
    for place in (folders, target) if job["version"] != job["target"] else (folders,):
        handler_files.initialise(place, job["name"])
    if job["writes_settings"]:
        settings = job["settings"]
        goal = topics.from_body(topics.ExtensionGoal, settings) if settings is not None else None
        handler_files.write_settings(target, goal, is_multi=job["is_multi"])
    if job["old"]:
        handler_files.copy_memory(_folders(job, job["old"]), target)
    return {"manifest": records.to_map(manifest)}


def note(job: Job) -> dict[str, Any]:
    """Write the state files of every version in ``states``: `[version, state, status text,
    extensions]` each.
    """
    for version, state, status, extensions in job["states"]:
        folders = _folders(job, version)
        if folders.config.is_dir():
            handler_files.write_state(folders, state, status, extensions)
    return {}


def forget(job: Job) -> dict[str, Any]:
    """Delete the files of ``extension``."""
    handler_files.forget_extension(_folders(job, job["version"]), job["extension"])
    return {}


def remove(job: Job) -> dict[str, Any]:
    """Remove the folder of ``version`` and its archive; what vanishes meanwhile is as good."""
    folders = _folders(job, job["version"])
    shutil.rmtree(folders.base, ignore_errors=True)
    archive = folders.base.with_name(f"{job['name']}__{job['version']}.zip")
    archive.unlink(missing_ok=True)
    if folders.base.exists():
        raise HandlerError("the folder is not gone", str(folders.base), "look what writes there")
    return {}


def log(job: Job) -> dict[str, Any]:
    """Append ``text`` to CommandExecution.log."""
    append_log(Path(job["logs"]) / job["name"], job["extension"], job["text"], PROCESS)
    return {}


def _folders(job: Job, version: str) -> Folders:
    return Folders(Place(Path(job["library"]), Path(job["logs"])), job["name"], version)


def _answered(do: Callable[[Job], dict[str, Any]]) -> Callable[[Job], dict[str, Any]]:
    def answer(job: Job) -> dict[str, Any]:
        try:
            return do(job)
        except HandlerError as error:
            return {"error": str(error), "code": error.code}
        except (OSError, files.FileError) as error:
            return {"error": str(error), "code": handler_errors.UNKNOWN, "again": True}

    return answer


KINDS = {do.__name__: _answered(do) for do in (look, prepare, note, forget, remove, log)}
