"""The openssl calls of this worker. Keys travel by pipes and by path names below a folder of mode
0700, never as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from waagent.distro.run import Finished, ToolError
from waagent.protocol.base.input_errors import DocumentError

CALL_S = 60.0
OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024
_REMEDY = "install openssl, or name it in OS.OpensslPath of waagent.conf"

Run = Callable[..., Any]


class Openssl:
    """Runs openssl through the worker's own tool runner."""

    def __init__(self, run: Run, program: str) -> None:
        self._run = run
        self._program = "openssl" if program in ("", "None") else program

    def call(self, argv: Sequence[str], stdin: bytes | None = None) -> Finished:
        """One call, whatever its exit status. Raises DocumentError when there is no openssl or it
        takes too long.
        """
        try:
            finished: Finished = self._run(
                [self._program, *argv],
                deadline_s=CALL_S,
                stdin=stdin,
                output_limit_bytes=OUTPUT_LIMIT_BYTES,
                check=False,
            )
        except ToolError as error:
            raise DocumentError("openssl cannot be run", self._program, _REMEDY) from error
        if finished.timed_out:
            raise DocumentError(
                f"openssl {argv[0]} took longer than {CALL_S:g} s",
                self._program,
                "look at the machine's load",
            )
        return finished

    def reason(self, finished: Finished) -> str:
        """The last line of what openssl said, for an error."""
        lines = finished.stderr.decode("utf-8", "replace").strip().splitlines()
        return (
            f"status {finished.status}, {lines[-1][:160]!r}"
            if lines
            else f"status {finished.status}"
        )
