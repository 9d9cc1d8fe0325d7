"""The entry of `waagent`: reads the command line and calls the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from waagent.protocol.base.input_errors import UsageError
from waagent.supervisor.commands import arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status: 0 done, 1 failed or not understood."""
    words = sys.argv[1:] if argv is None else argv
    try:
        line = arguments.read_line(words)
    except UsageError as error:
        print(f"waagent: {error}", file=sys.stderr)
        return 1
    from waagent.supervisor.commands import table  # after the words are known to be right: 15 ms

    try:
        if os.path.exists("/run/waagent/.masked"):  # started by an extension's command
            from waagent.distro.fences import mask

            mask.leave()
        status = table.run(line, dict(os.environ))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    except (OSError, ImportError) as error:
        if line.is_verbose:
            raise
        where = getattr(error, "filename", None) or getattr(error, "name", None) or "-"
        what = getattr(error, "strerror", None) or type(error).__name__
        print(f"waagent: {what}: {ascii(where)}: see it whole with -verbose", file=sys.stderr)
        return 1
    return status
