"""Build of the package (setup.cfg and pyproject.toml), and `setup.py install` and `uninstall`,
which put the agent into an environment of its own and remove it: docs/install.md.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    """Our own commands need no setuptools; everything else is its."""
    if sys.version_info < (3, 9):  # noqa: UP036 - pip asks python_requires, nobody else does
        sys.exit("setup.py: the agent needs Python 3.9 or newer, this is " + sys.version.split()[0])
    sys.path.insert(0, str(HERE))
    import waagent

    # a copy without symbolic links (a zip download, scp) has the rooms at the top only
    waagent.__path__.append(str(HERE))
    from waagent.distro import installation_command

    return installation_command.main(HERE, sys.argv[1:])


# Building a wheel runs a command named "install" as well: ours exists only when a person asks for
# it by name.
if sys.argv[1:2] in (["install"], ["uninstall"]):
    sys.exit(main())

from setuptools import setup  # noqa: E402 - not there on every machine, and only a build needs it

setup()
