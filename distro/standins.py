"""What packages import and we never use, and what stands in for it meanwhile: each MiB here would
be in six processes.

`install()` is the first call of the zygote, before anything but `sys` and `os` is imported;
`remove()` the last one before it takes orders. Whoever imports the real module later gets it.
Figures are private memory of one process, Python 3.11.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_installed: dict[str, ModuleType] = {}


class _Anything:
    """What an annotation is made of, where nobody looks at annotations: base class, subscript,
    decorator and type variable.
    """

    def __init__(self, *_values: object, **_named: object) -> None:
        pass

    def __class_getitem__(cls, _item: object) -> type:
        return cls

    def __or__(self, _other: object) -> object:
        return self


class _Numbers:
    """`IntEnum` and `IntFlag` of a process that needs no names for numbers."""

    @classmethod
    def _convert_(cls, name: str, module: str, *_rest: object, **_named: object) -> None:
        setattr(sys.modules[module], name, lambda value: value)


class _Typing(ModuleType):
    TYPE_CHECKING = False

    @staticmethod
    def cast(_kind: object, value: object) -> object:
        return value

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything


def install(*more: str) -> None:
    """Have the lighter modules everywhere; empty ones for ``more`` as well, which this process must
    not need.
    """
    try:
        import _datetime  # type: ignore[import-not-found]
    except ImportError:  # another implementation of Python: nothing to gain
        pass
    else:
        # as 3.12 does; the Python half is thrown away after 0.3 MiB
        sys.modules.setdefault("datetime", _datetime)
    from _thread import allocate_lock

    stand_in(_Typing("typing"))  # 0.5 MiB; annotations are for type checkers
    # 0.3 MiB, and 0.4 in each child by its fork hook
    stand_in(ModuleType("threading"), Lock=allocate_lock, Event=_Anything)
    stand_in(ModuleType("pickle"), DEFAULT_PROTOCOL=4)  # 0.3 MiB; zmq's send_pyobj
    # 0.2 MiB, and 0.1 in each child by its fork hook; zmq's bind_to_random_port
    stand_in(ModuleType("random"))
    stand_in(ModuleType("selectors"))  # 0.1 MiB; socket.sendfile
    stand_in(ModuleType("warnings"), warn=_Anything)  # 0.1 MiB; deprecations of pathlib and zmq
    stand_in(ModuleType("platform"), python_implementation=lambda: "CPython")
    for name in ("enum", *more):
        stand_in(ModuleType(name), IntEnum=_Numbers, IntFlag=_Numbers)
    load("socket")  # 0.2 MiB of names for its numbers
    load("signal")
    if "enum" not in more:
        remove("enum")
    stand_in(ModuleType("urllib"), __path__=[])
    # 0.4 MiB with ipaddress; Path.as_uri
    stand_in(ModuleType("urllib.parse"), quote_from_bytes=None)
    load("pathlib")


def load(name: str) -> None:
    """Import the package ``name``; with the real modules where it, in some version, does not take
    ours.
    """
    try:
        importlib.import_module(name)
    except Exception:  # whatever it needs of them
        remove()
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]
        importlib.import_module(name)


def stand_in(module: ModuleType, **attributes: object) -> None:
    """Let ``module`` be what `import` finds, until `remove`; nothing is done when the real one is
    there.
    """
    if module.__name__ not in sys.modules:
        vars(module).update(attributes)
        sys.modules[module.__name__] = _installed[module.__name__] = module


def remove(*names: str) -> None:
    """From now on `import` finds the real modules; with ``names``: these."""
    for name in names or tuple(_installed):
        module = _installed.pop(name, None)
        if module is not None and sys.modules.get(name) is module:
            del sys.modules[name]
