"""Work on files of others, given to processes that stay for a while (file_jobs.py): one at first,
more while that one is busy.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent.protocol.base.records import Record
from waagent.workers.python_child import PythonChild

if TYPE_CHECKING:
    from waagent.workers.loop import Timer
    from waagent.workers.runtime import Worker

MODULE = "waagent.workers.extension_runner.file_jobs"
AT_ONCE = 4  # processes, each 12 MiB
SPARE_S = 20.0  # without work, then it ends; the next start costs 0.1 s of CPU
START_S = 60.0  # the smallest VMs give a process 5 % of a CPU
QUEUE_S = 1.0  # waited for a busy process before another one is started
ANSWER_LIMIT_BYTES = 8 * 1024 * 1024
NOT_STARTED = "was not started: the process for it ended at once"

Done = Callable[[Any, str], None]
"""Gets the answer (a map) and an empty text, or None and the reason."""


class _Job(Record):
    line: bytes
    deadline_s: float
    done: Done


class _FileProcess:
    """One process. Invariant: it has at most one job, whose ``done`` is called once."""

    def __init__(self, worker: Worker, changed: Callable[[_FileProcess], None]) -> None:
        self._worker, self._changed = worker, changed
        self._said = bytearray()
        self._job: _Job | None = None
        self.is_ready = self.is_leaving = False
        self._child = PythonChild(
            worker, MODULE, title="extension_runner files", on_data=self._take, on_end=self._end
        )
        self._timer = worker.loop.after(START_S, lambda: self._child.kill("did not start"))

    @property
    def is_free(self) -> bool:
        """It waits for a job."""
        return self.is_ready and self._job is None and not self.is_leaving

    def give(self, job: _Job) -> None:
        """Have ``job`` done; only when it is free."""
        self._job = job
        self._wait(job.deadline_s, lambda: self._give_up("took too long"))
        self._child.write(job.line)

    def finish(self) -> None:
        """No more work will come."""
        self.is_leaving = True
        self._child.close_input()
        self._changed(self)

    def _give_up(self, reason: str) -> None:
        """Its job is answered now: a process that hangs in the kernel is not gone when it is
        killed.
        """
        self._child.kill(reason)
        self.is_leaving = True
        job, self._job = self._job, None
        if job is not None:
            job.done(None, reason)
        self._changed(self)

    def _wait(self, seconds: float, call: Callable[[], None]) -> None:
        self._timer.cancel()
        self._timer = self._worker.loop.after(seconds, call)

    def _take(self, data: bytes) -> None:
        self._said += data
        if len(self._said) > ANSWER_LIMIT_BYTES:
            self._child.kill("answered too much")
        while b"\n" in self._said:
            line, _, rest = self._said.partition(b"\n")
            self._said = rest
            if self.is_leaving:
                return  # answered after its time
            job, self._job = self._job, None
            self.is_ready = True
            self._wait(SPARE_S, self.finish)
            if job is not None:
                job.done(json.loads(line), "")
            self._changed(self)

    def _end(self, reason: str) -> None:
        self._timer.cancel()
        self.is_leaving = True
        job, self._job = self._job, None
        if job is not None:
            job.done(None, reason or "ended without an answer")
        self._changed(self)


class FileProcesses:
    """Invariant: a job that hangs or crashes costs the process that had it; all others are
    answered.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._processes: list[_FileProcess] = []
        self._waiting: deque[_Job] = deque()
        self._growing: Timer | None = None

    def prepare(self) -> None:
        """Work will come soon: have a process."""
        if not self._processes:
            self._start()

    def run(self, job: Mapping[str, Any], *, deadline_s: float, done: Done) -> None:
        """Have ``job`` done; ``deadline_s`` from when a process has it."""
        self._waiting.append(_made(job, deadline_s, done))
        self._go_on()

    def run_alone(self, job: Mapping[str, Any], *, deadline_s: float, done: Done) -> None:
        """`run`, in a process of its own: nobody waits behind this job."""
        left = [_made(job, deadline_s, done)]

        def changed(process: _FileProcess) -> None:
            if process.is_free and left:
                process.give(left.pop())
            elif process.is_free:
                process.finish()
            elif process.is_leaving and left:
                left.pop().done(None, NOT_STARTED)

        _FileProcess(self._worker, changed)

    def _go_on(self) -> None:
        for process in self._processes:
            if self._waiting and process.is_free:
                process.give(self._waiting.popleft())
        if not self._waiting:
            return
        if not self._processes:
            self._start()
        elif self._growing is None and len(self._processes) < AT_ONCE:
            self._growing = self._worker.loop.after(QUEUE_S, self._grow)

    def _grow(self) -> None:
        self._growing = None
        if self._waiting and all(process.is_ready for process in self._processes):
            self._start()
        self._go_on()

    def _start(self) -> None:
        self._processes.append(_FileProcess(self._worker, self._changed))

    def _changed(self, process: _FileProcess) -> None:
        if process.is_leaving and process in self._processes:
            self._processes.remove(process)
            if not process.is_ready:
                waiting, self._waiting = self._waiting, deque()
                for job in waiting:
                    job.done(None, NOT_STARTED)
        self._go_on()


def _made(job: Mapping[str, Any], deadline_s: float, done: Done) -> _Job:
    return _Job(json.dumps(job).encode() + b"\n", deadline_s, done)
