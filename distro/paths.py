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
        self._library = library
        self._log_folder = log_folder

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

    # configuration
    @property
    def configuration(self) -> Path:
        return self.under("/etc/waagent.conf")

    @property
    def configuration_folder(self) -> Path:
        return self.under("/etc/waagent/conf.d")

    @property
    def sandbox_folder(self) -> Path:
        return self.under("/etc/waagent/sandbox.d")

    # run time, on a tmpfs
    @property
    def run(self) -> Path:
        return self.under("/run/waagent")

    @property
    def control_socket(self) -> Path:
        return self.run / "control"

    @property
    def state(self) -> Path:
        return self.run / "state"

    @property
    def locks(self) -> Path:
        return self.run / "lock"

    @property
    def bus(self) -> Path:
        return self.run / "bus"

    @property
    def operations_view(self) -> Path:
        """What `waagent-ps extensions` reads (JSON, 0644, written by extension_runner)."""
        return self.run / "operations"

    # state that lasts
    @property
    def library(self) -> Path:
        return self.under(self._library)

    @property
    def operations(self) -> Path:
        """Records of operations, root only."""
        return self.library / "operations"

    @property
    def transport(self) -> Path:
        """The transport key and certificate, 0700, certificate_keeper's alone."""
        return self.library / "transport"

    @property
    def provisioned(self) -> Path:
        return self.library / "provisioned"

    @property
    def cache(self) -> Path:
        """Spool of fabric_client and transfer, 0700 waagent."""
        return self.under("/var/cache/waagent")

    # logs
    @property
    def log(self) -> Path:
        return self.under("/var/log/waagent.log")

    @property
    def hang_folder(self) -> Path:
        """Stacks of hung workers: <worker>.hang, .hang.1, .hang.2."""
        return self.under("/var/log/waagent")

    @property
    def handler_logs(self) -> Path:
        return self.under(self._log_folder)
