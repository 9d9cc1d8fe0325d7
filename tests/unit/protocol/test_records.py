"""Records: what a named tuple gives, and what is wrong said at once."""

from __future__ import annotations

import pytest

from waagent.protocol.base.records import Record, is_record, to_map


class Point(Record):
    """Two numbers and a name."""

    x: int
    y: int = 0
    name: str = ""

    @property
    def total(self) -> int:
        return self.x + self.y


class Size(Record):
    """The same fields as a point."""

    x: int
    y: int = 0
    name: str = ""


class Line(Record):
    """Holds other records."""

    points: tuple[Point, ...]
    named: dict[str, Point]


def test_fields_are_given_by_place_or_name_and_have_defaults() -> None:
    assert Point(1, 2, "p") == Point(1, y=2, name="p") == Point(x=1, y=2, name="p")
    assert (Point(3).x, Point(3).y, Point(3).name, Point(3, 4).total) == (3, 0, "", 7)
    assert repr(Point(1)) == "Point(x=1, y=0, name='')"


@pytest.mark.parametrize("call", [
    lambda: Point(), lambda: Point(1, 2, "p", 4), lambda: Point(1, z=2), lambda: Point(1, x=2), lambda: Point(y=2),
    lambda: Point(1)._replace(z=2),
])  # fmt: skip
def test_a_wrong_field_is_named(call) -> None:
    with pytest.raises(TypeError, match="Point (takes|needs) .*[xyz]"):
        call()


def test_a_record_does_not_change_and_a_copy_does() -> None:
    point = Point(1, 2)
    with pytest.raises(AttributeError):
        point.x = 5  # type: ignore[misc]
    with pytest.raises(AttributeError):
        point.other = 5  # type: ignore[attr-defined]

    assert point._replace(y=9) == Point(1, 9)
    assert point == Point(1, 2)


def test_unlike_things_are_unequal() -> None:
    point, size = Point(1, 2), Size(1, 2)

    assert point != size and size != point and not point == size
    assert point != (1, 2, "") and (1, 2, "") != point
    assert len({point, size, Point(1, 2)}) == 2
    assert point in (size, Point(1, 2)) and point not in (size,)


def test_a_map_of_a_record_holds_maps() -> None:
    line = Line((Point(1), Point(2, 3)), {"end": Point(4)})

    assert is_record(line) and is_record(Point) and not is_record((1, 2))
    assert to_map(line) == {
        "points": ({"x": 1, "y": 0, "name": ""}, {"x": 2, "y": 3, "name": ""}),
        "named": {"end": {"x": 4, "y": 0, "name": ""}},
    }
