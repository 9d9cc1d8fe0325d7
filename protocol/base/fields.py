"""Records out of maps that somebody else wrote: no reader of a state file fails by what stands in
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "str":               (str,),
    "str | None":        (str,),
    "int":               (int,),
    "int | None":        (int,),
    "float":             (int, float),
    "float | None":      (int, float),
    "bool | None":       (bool,),
    "tuple[str, ...]":   (list, tuple),
    "Mapping[str, Any]": (dict,),
}  # fmt: skip
"""What a field may be on the wire, by its annotation."""


def taken(kind: type, said: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of ``said`` that the record ``kind`` has, by name; what is of another type than
    its annotation, or a record itself, is left out.
    """
    found = {}
    for name, annotation in kind.__annotations__.items():
        value, allowed = said.get(name), _TYPES.get(annotation, ())
        if isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool)):
            found[name] = tuple(map(str, value)) if isinstance(value, list) else value
    return found
