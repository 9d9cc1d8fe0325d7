"""Reads one status file that a handler wrote; in a process of its own (file_jobs.py), with 2 s.

A job is `{"folder", "file", "name", "known"}`, its answer `{"same": true}`, `{"absent": true}`,
`{"signature", "wall_ns", "status"}` or `{"signature", "error", "sample"}`. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from waagent.distro import files
from waagent.protocol.handler.handler_errors import StatusFileError
from waagent.protocol.handler.status_file import FILE_LIMIT_BYTES, parse_status

SAMPLE_BYTES = 200


def read_one(job: Mapping[str, Any]) -> dict[str, Any]:
    """What one file says, or why it says nothing; never raises."""
    folder, name = Path(job["folder"]), job["file"]
    try:
        before = os.lstat(folder / name)
        signature = [before.st_ino, before.st_size, before.st_mtime_ns]
    except FileNotFoundError:
        return {"absent": True}
    except OSError as error:
        return {"signature": [], "error": f"cannot be read: {error.strerror}", "sample": ""}
    if signature == job["known"]:
        return {"same": True}
    answer: dict[str, Any] = {"signature": signature, "wall_ns": before.st_mtime_ns}
    data = b""
    try:
        data = files.read_foreign(folder, name, limit_bytes=FILE_LIMIT_BYTES)
        after = os.lstat(folder / name)
        if [after.st_ino, after.st_size, after.st_mtime_ns] != signature or len(
            data
        ) != before.st_size:
            raise StatusFileError("changed while it was read", name, "read again")
        answer["status"] = json.loads(parse_status(data).to_json(job["name"]))
    except FileNotFoundError:
        return {"absent": True}
    except (StatusFileError, files.ForeignFileError) as error:
        answer.update(
            error=error.what, sample=data[:SAMPLE_BYTES].decode("utf-8", "backslashreplace")
        )
    except (OSError, MemoryError) as error:
        answer.update(error=f"cannot be read: {type(error).__name__}", sample="")
    return answer
