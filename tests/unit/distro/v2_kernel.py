"""cgroup v2 as the kernel judges it (cgroup_vet_subtree_control_enable, cgroup_migrate_vet_dst), on
a folder of plain files: for machines whose controllers are all v1.

Python tells an audit hook of each file it is about to open and of each folder it is about to make
(PEP 578); here the files of a new cgroup appear, what the kernel would refuse raises its error, and
the order of it all is kept. The code under test is what runs everywhere else.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

FILES = ("cgroup.procs", "cgroup.controllers", "cgroup.subtree_control", "cgroup.type")
OFFERED = "cpu io memory pids"


class V2Kernel:
    """A cgroup of ours, as systemd makes it with Delegate=yes, that the calling process sits in.

    ``happened`` holds `mkdir`, `join` and `hand down`, each with the folder's path below the base.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home: Path | None = base
        """Where the calling process is."""
        self.others: set[Path] = set()
        """Where somebody else is."""
        self.happened: list[tuple[str, str]] = []
        self._handed: dict[Path, set[str]] = {}
        self._spoiled: set[Path] = set()
        base.mkdir()
        self._fill(base)
        self._listens = True
        sys.addaudithook(self._hear)

    def stop(self) -> None:
        """A hook cannot be taken away; this one does nothing from now on."""
        self._listens = False

    def handed(self, folder: Path) -> set[str]:
        """What ``folder`` hands down: what was written, one name at a time."""
        file = folder / "cgroup.subtree_control"
        found = self._handed.setdefault(folder, set())
        found.update(file.read_text().replace("+", "").split())
        return found

    def offered(self, folder: Path) -> set[str]:
        """The controllers that ``folder`` has."""
        return set(OFFERED.split()) if folder == self.base else self.handed(folder.parent)

    def _fill(self, folder: Path) -> None:
        for name in FILES:
            (folder / name).touch()

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in ("open", "os.mkdir") or not self._listens:
            return
        if not isinstance(arguments[0], (str, bytes)):
            return
        path = Path(os.fsdecode(arguments[0]))
        if self.base not in path.parents:
            return
        self._listens = False  # what is done here is not told
        try:
            if event == "os.mkdir":
                self._make(path)
            elif int(str(arguments[2])) & os.O_ACCMODE == os.O_RDONLY:
                self._show(path)
            elif path.name == "cgroup.procs":
                self._join(path.parent)
            elif path.name == "cgroup.subtree_control":
                self._hand_down(path.parent)
        finally:
            self._listens = True

    def _note(self, what: str, folder: Path) -> None:
        where = str(folder.relative_to(self.base))
        if (what, where) not in self.happened:
            self.happened.append((what, where))

    def _make(self, path: Path) -> None:
        if not path.exists():
            self._note("mkdir", path)
            path.mkdir()  # the caller finds it there
            self._fill(path)

    def _holds(self, folder: Path) -> bool:
        return folder == self.home or folder in self.others

    def _is_populated(self, folder: Path) -> bool:
        places = {self.home, *self.others} - {None}
        return any(place == folder or folder in place.parents for place in places if place)

    def _show(self, path: Path) -> None:
        if path.name == "cgroup.procs":
            path.write_text(f"{os.getpid()}\n" if self._holds(path.parent) else "")
        elif path.name == "cgroup.controllers":
            path.write_text(" ".join(sorted(self.offered(path.parent))))
        elif path.name == "cgroup.subtree_control":
            path.write_text(" ".join(sorted(self.handed(path.parent))))

    def _join(self, folder: Path) -> None:
        self._note("join", folder)
        if self._spoiled.intersection(folder.parents):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if self.handed(folder):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self.home = folder

    def _hand_down(self, folder: Path) -> None:
        self._note("hand down", folder)
        self.handed(folder)
        (folder / "cgroup.subtree_control").write_text("")
        if self._holds(folder):
            if any(self._is_populated(child) for child in folder.iterdir() if child.is_dir()):
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            # pids and cpu are threaded: they are handed down, and no process may go below
            self._spoiled.add(folder)
