"""Where everything lives, below one root prefix, so that nothing needs patching in a test or in an
image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Paths:
    """Every path the agent uses, below ``root`` (``/`` on a running system).

    ``library`` and ``log_folder`` follow the options Lib.Dir and Extension.LogDir when they are
    given.
    """

    def __init__(
        self,
        root: Path | str = "/",
        *,
        library: str = "/var/lib/waagent",
        log_folder: str = "/var/log/azure",
    ) -> None:
        self.root = Path(root)
        self._library, self._log_folder = library, log_folder

        # configuration
        self.configuration = self.under("/etc/waagent.conf")
        self.configuration_folder = self.under("/etc/waagent/conf.d")
        self.sandbox_folder = self.under("/etc/waagent/sandbox.d")

        # run time, on a tmpfs
        self.run = self.under("/run/waagent")
        self.control_socket = self.run / "control"
        self.state = self.run / "state"
        self.locks = self.run / "lock"
        self.bus = self.run / "bus"
        self.operations_view = self.run / "operations"
        """What `waagent-ps extensions` reads (JSON, 0644, written by extension_runner)."""

        # state that lasts
        self.library = self.under(library)
        self.operations = self.library / "operations"
        """Records of operations, root only."""
        self.transport = self.library / "transport"
        """The transport key and certificate, 0700, certificate_keeper's alone."""
        self.provisioned = self.library / "provisioned"
        self.cache = self.under("/var/cache/waagent")
        """Spool of fabric_client and transfer, 0700 waagent."""

        # logs
        self.log = self.under("/var/log/waagent.log")
        self.hang_folder = self.under("/var/log/waagent")
        """Stacks of hung workers: <worker>.hang, .hang.1, .hang.2."""
        self.handler_logs = self.under(log_folder)

    def under(self, absolute: str) -> Path:
        """The path ``absolute`` of the system, below the root prefix."""
        return self.root / absolute.lstrip("/")

    def configured(self, values: Mapping[str, Any]) -> Paths:
        """The same root with the folders that Lib.Dir and Extension.LogDir in ``values`` name; what
        is not there, or is no absolute path, stays.
        """
        named = [values.get(option) for option in ("Lib.Dir", "Extension.LogDir")]
        library, log_folder = (
            value if isinstance(value, str) and value.startswith("/") else present
            for value, present in zip(named, (self._library, self._log_folder))
        )
        return Paths(self.root, library=library, log_folder=log_folder)
