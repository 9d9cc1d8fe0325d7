"""A command `python` for handlers that begin with `#!/usr/bin/env python`, where the system has
none and the operator asks for it (`PythonCommand=y` in the handler's sandbox.d file).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = "python-command"
"""Below <lib>; it holds one link, and stands last in a handler's PATH."""


def with_python(environment: Mapping[str, str], library: Path) -> dict[str, str]:
    """``environment`` with `python` on its PATH. Raises OSError when the link cannot be made."""
    path = environment["PATH"]
    python3 = _found("python3", path)
    if python3 is None or _found("python", path) is not None:
        return dict(environment)
    folder = library / FOLDER
    folder.mkdir(mode=0o755, exist_ok=True)
    link = folder / "python"
    if not link.is_symlink() or os.readlink(link) != python3:
        link.unlink(missing_ok=True)
        link.symlink_to(python3)
    return {**environment, "PATH": f"{path}:{folder}"}


def _found(name: str, path: str) -> str | None:
    """Where the program is; shutil, which has this, loads two compressors into every worker."""
    places = (os.path.join(folder, name) for folder in path.split(":"))
    return next((p for p in places if os.path.isfile(p) and os.access(p, os.X_OK)), None)
