"""`/usr/sbin/waagent` loaded as a module: handlers of the 2.0 line do that, with a Python of their
own. Standard library only: the installer uses this.
"""

from __future__ import annotations

SOURCE = "etc/compat/waagent.py"
_WAY = "lib/python3*/site-packages/waagent/" + SOURCE


def as_module(environment: str) -> bytes:
    """What follows in the file of the command: loaded as `waagent` it is the module that lies in
    the agent's ``environment``. It depends on no working directory and no search path.
    """
    return (
        'if __name__ == "waagent":\n'
        "    import glob\n"
        "\n"
        f'    for _path in glob.glob("{environment}/{_WAY}")[:1]:\n'
        '        with open(_path, "rb") as _file:\n'
        '            exec(compile(_file.read(), _path, "exec"), globals())\n'
    ).encode()
