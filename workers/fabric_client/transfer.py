"""Executed once per transaction by fabric_client, under the same uid: it may die of what it reads,
nobody else does.

In: one msgpack map on stdin, ``operation`` and its fields, ``deadline_s``. Out: msgpack maps on
stdout, each with ``kind``; the last is ``end``. Operations:

goal_state    {versions, body, endpoint, port} -> ids, then extensions, shared_config; a part that
failed: failed {part, text, status} certificates  {target, certificate, cipher, endpoint, port} ->
cms {data} package       {name, version, manifest_urls, endpoint, hostplugin_port, container_id,
config_name, proxy, folder, retry_s}
              -> package {file, size_bytes, sha256, uri}; failed
status        {url, blob_type, content, date, proxy} -> stored; failed

Memory is limited by RLIMIT_AS, time by the deadline, results by helper.RESULT_LIMIT_BYTES. lxml and
requests are loaded here only.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from typing import Any

import msgpack

# address space: 256 MiB of data and what is mapped of libraries
MEMORY_LIMIT_BYTES = 384 * 1024 * 1024
INPUT_LIMIT_BYTES = 32 * 1024 * 1024


def send(kind: str, **fields: Any) -> None:
    """One frame to fabric_client."""
    data = memoryview(msgpack.packb({"kind": kind, **fields}, use_bin_type=True))
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """One piece of work, then the end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # lxml, loaded while fabric_client still waits for the platform
    from waagent.workers.fabric_client import documents

    data = sys.stdin.buffer.read(INPUT_LIMIT_BYTES)
    if not data:
        return  # a spare process that was not needed
    job = msgpack.unpackb(data, raw=False, strict_map_key=True)
    signal.alarm(max(1, int(job["deadline_s"]) + 5))
    operation = job["operation"]
    if operation == "goal_state":
        documents.read_goal_state_documents(job, send)
    elif operation == "certificates":
        documents.read_certificates(job, send)
    elif operation == "package":
        # requests: 12 MiB and 0.2 s that goal states do not need
        from waagent.workers.fabric_client import download

        download.fetch_package(job, send)
    elif operation == "status":
        from waagent.workers.fabric_client import direct_upload  # requests, see above

        direct_upload.store_status(job, send)
    send("end")


if __name__ == "__main__":
    main()
