"""Records: immutable values of their class with named fields, and records as plain maps.

Unlike records are unequal, whatever their fields. To a reader and a type checker a `Record` is a
`typing.NamedTuple` whose equality knows the class; a frozen dataclass costs 15 KiB a class and
1.3 MiB for its import in each process that stays, this 2 KiB a class
(docs/decisions/0005-one-kind-of-record.md).
"""

from __future__ import annotations

from operator import itemgetter
from types import MappingProxyType

__all__ = ["Record", "is_record", "to_map"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from typing import NamedTuple as Record

else:
    # one for all records: they are many
    _FIELDS = tuple(property(itemgetter(number)) for number in range(64))

    class _RecordType(type):
        def __new__(mcs, name, bases, space):
            fields = tuple(space.get("__annotations__", ()))
            space["_fields"] = fields
            space["_field_defaults"] = {field: space[field] for field in fields if field in space}
            space["__slots__"] = ()
            space.update(zip(fields, _FIELDS))
            return super().__new__(mcs, name, bases, space)

    class Record(tuple, metaclass=_RecordType):
        """Fields are the class's annotations, in their order; a value given to one is its
        default.
        """

        def __new__(cls, *values, **named):
            if named or len(values) != len(cls._fields):
                values += tuple(cls._given(named, field) for field in cls._fields[len(values) :])
                if named or len(values) != len(cls._fields):
                    raise TypeError(
                        f"{cls.__name__} takes {', '.join(cls._fields)}; not"
                        f" {', '.join(named) or len(values)}"
                    )
            return tuple.__new__(cls, values)

        @classmethod
        def _given(cls, named, field):
            if field in named:
                return named.pop(field)
            if field not in cls._field_defaults:
                raise TypeError(f"{cls.__name__} needs {field}")
            return cls._field_defaults[field]

        def __eq__(self, other):
            return type(self) is type(other) and tuple.__eq__(self, other)

        def __ne__(self, other):
            return not self == other

        def __hash__(self):
            return hash((type(self), tuple.__hash__(self)))

        def _replace(self, **changes):
            """A copy with other values for some fields."""
            return type(self)(**{**dict(zip(self._fields, self)), **changes})

        def _asdict(self):
            return dict(zip(self._fields, self))

        def __repr__(self):
            fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self))
            return f"{type(self).__name__}({fields})"


def is_record(value: Any) -> bool:
    """Whether ``value`` is a record, or a class of them."""
    return hasattr(value, "_fields")


def to_map(record: Any) -> dict[str, Any]:
    """``record`` as a map; records in it are maps too, tuples stay as they are (JSON and msgpack
    make arrays of them).
    """
    return {name: _plain(value) for name, value in zip(record._fields, record)}


def _plain(value: Any) -> Any:
    if is_record(value):
        return to_map(value)
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, (dict, MappingProxyType)):
        return {key: _plain(item) for key, item in value.items()}
    return value
