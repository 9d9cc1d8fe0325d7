"""The transfer process, executed by fabric_client under the same uid: whatever comes from outside
is fetched and parsed here, in one process of its own for each piece of work.

It has the imports done and forks a child for each piece of work (a fork costs 3 ms, a start with
its imports 120 ms). A child may hang or die of what it reads, its piece of work alone is lost.
Descriptor 0 is a SOCK_SEQPACKET socket; each packet on it carries one end of a stream socket, on
which the child gets one msgpack map, ``operation`` and its fields, ``deadline_s``, ``is_handed``,
and answers with maps, each with ``kind``; the last is ``end``. Operations:

goal_state    {versions, body, endpoint, port, hostplugin_port, channels, proxies} -> ids, then
              extensions, document {name, data}; a part that failed: failed {part, text, status}
vm_settings   {body, etag} -> extensions; failed, with is_unsupported
remote_access {target, certificate, cipher, endpoint, port} -> users {users, findings}; failed
certificates  {target, certificate, cipher, endpoint, port} -> cms {data}; failed
package       {name, version, manifest_urls, endpoint, hostplugin_port, container_id, config_name,
              channels, proxies, is_fast_track, folder, retry_s}
              -> package {file, size_bytes, sha256, uri, channel, failed_channels}; failed
status        {url, blob_type, content, date, proxies} -> stored; failed

With ``is_handed`` a child asks for its connections to the platform: connect {to}, answered by one
byte with a connected socket, or by `x` without one. The process ends when descriptor 0 does.
Memory is limited by RLIMIT_AS, time by an alarm, results by transfer_process.RESULT_LIMIT_BYTES.
lxml and requests are loaded here only.
"""

from __future__ import annotations

import functools
import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack

from waagent.distro.process_title import set_title
from waagent.protocol.base.input_errors import DocumentError
from waagent.workers.fabric_client import plain_http

# address space: 256 MiB of data and what is mapped of libraries
MEMORY_LIMIT_BYTES = 384 * 1024 * 1024
JOB_LIMIT_BYTES = 32 * 1024 * 1024
ALARM_SLACK_S = 5  # fabric_client gives up at the deadline; a child that does not notice ends then
_CHUNK_BYTES = 256 * 1024


class Channel:
    """A child's side of one piece of work."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unpacker = msgpack.Unpacker(
            raw=False, strict_map_key=True, max_buffer_size=JOB_LIMIT_BYTES
        )
        self._is_handed = False

    def receive_job(self) -> dict[str, Any] | None:
        """What is to be done; None when nobody waits for it any more."""
        while data := self._connection.recv(_CHUNK_BYTES):
            self._unpacker.feed(data)
            for job in self._unpacker:
                self._is_handed = bool(job.get("is_handed"))
                return dict(job)
        return None

    def send(self, kind: str, **fields: Any) -> None:
        """One frame to fabric_client."""
        self._connection.sendall(msgpack.packb({"kind": kind, **fields}, use_bin_type=True))

    def connect(self, to: str, address: tuple[str, int], deadline_s: float) -> socket.socket:
        """A connection to ``to`` (wire/handover.py), which is at ``address``: made here, or handed
        over where a firewall lets only root connect. Raises OSError.
        """
        if not self._is_handed:
            return socket.create_connection(address, timeout=deadline_s)
        self.send("connect", to=to)
        self._connection.settimeout(deadline_s)
        try:
            _, descriptors, _, _ = socket.recv_fds(self._connection, 1, 1, socket.MSG_CMSG_CLOEXEC)
        finally:
            self._connection.settimeout(None)
        if not descriptors:
            raise OSError(0, "no connection was handed over")
        connection = socket.socket(fileno=descriptors[0])
        connection.settimeout(deadline_s)
        return connection


def carry_out(job: Mapping[str, Any], channel: Channel) -> None:
    """One piece of work, and the word that it is over."""
    from waagent.workers.fabric_client import documents, download

    wire: plain_http.Connect = functools.partial(channel.connect, "wireserver")
    plugin: plain_http.Connect = functools.partial(channel.connect, "hostplugin")
    operation = job["operation"]
    if operation == "goal_state":
        documents.read_goal_state_documents(job, channel.send, wire, plugin)
    elif operation == "vm_settings":
        documents.read_vm_settings_document(job, channel.send)
    elif operation == "remote_access":
        documents.read_remote_access_document(job, channel.send, wire)
    elif operation == "certificates":
        documents.read_certificates(job, channel.send, wire)
    elif operation == "package":
        download.fetch_package(job, channel.send, plugin)
    elif operation == "status":
        # requests: 60 ms and 12 MiB that only a direct way to storage needs
        from waagent.workers.fabric_client import direct_upload

        direct_upload.store_status(job, channel.send)
    channel.send("end")


def main() -> None:
    """Fork a child for each piece of work until fabric_client closes our standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGCHLD, _reap)
    orders = socket.socket(fileno=0)
    # lxml and our parsers: loaded once, while fabric_client still waits for the platform
    from waagent.workers.fabric_client import documents, download  # noqa: F401

    gc.collect()
    gc.freeze()  # the collector would copy pages that are shared with the children
    while True:
        packet, descriptors, _, _ = socket.recv_fds(orders, 16, 1, socket.MSG_CMSG_CLOEXEC)
        for descriptor in descriptors:
            try:
                if os.fork() == 0:
                    _live(orders, descriptor)
            except OSError as error:  # its end is told by the closed socket
                print(f"transfer: no process: {error.strerror}", file=sys.stderr, flush=True)
            os.close(descriptor)
        if not packet:
            return


def _reap(number: int, frame: object) -> None:
    """fabric_client sees a child's end by its socket; what killed it is said here."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if os.WIFSIGNALED(status):
                text = f"transfer: process {pid} was ended by signal {os.WTERMSIG(status)}"
                print(text, file=sys.stderr, flush=True)
    except ChildProcessError:
        return  # there is none left


def _live(orders: socket.socket, descriptor: int) -> NoReturn:
    """All of a child's life."""
    status = 1
    try:
        orders.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        channel = Channel(socket.socket(fileno=descriptor))
        signal.alarm(ALARM_SLACK_S)
        job = channel.receive_job()
        if job is not None:
            signal.alarm(max(1, int(job["deadline_s"]) + ALARM_SLACK_S))
            subject = job["name"] if job["operation"] == "package" else ""
            set_title(f"transfer {job['operation'].replace('_', ' ')} {subject}".rstrip())
            carry_out(job, channel)
        status = 0
    except (BrokenPipeError, ConnectionResetError, DocumentError):
        pass  # nobody waits for it any more
    except Exception:  # the outermost loop of this process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
