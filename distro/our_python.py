"""The one way to start a process of our own Python: lean, and importing from where we import."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

_HERE = os.path.dirname(os.path.abspath(__file__))
_START = os.path.join(_HERE, "start.py")
_PACKAGES = os.path.dirname(os.path.dirname(_HERE))  # the folder that holds `waagent`


def argv(
    module: str,
    *arguments: str,
    title: str = "",
    groups: Iterable[str] = (),
    path: Iterable[str] = (),
) -> list[str]:
    """The command line that calls ``main()`` of ``module``, with ``arguments`` in `sys.argv[1:]`.

    By this interpreter, isolated (`-I`) and without `site` (`-S`: 15 ms instead of 40). It imports
    from where this process does, and from ``path``; joins ``groups`` (cgroup.procs files) before
    that, and is shown by `ps` as ``title`` (empty: as this command line).
    """
    places = import_places(path)
    return [
        *(sys.executable, "-I", "-S", _START),
        *(":".join(places), ":".join(groups), title, module),
        *arguments,
    ]


def import_places(more: Iterable[str] = ()) -> list[str]:
    """Where packages are imported from: what an interpreter that starts with `-I -S` does not know
    by itself.
    """
    library = os.path.dirname(os.__file__)
    known = {library, os.path.join(library, "lib-dynload")}
    given = [_PACKAGES, *filter(os.path.isabs, sys.path), *more]
    return [place for place in dict.fromkeys(given) if place not in known and place[-4:] != ".zip"]
