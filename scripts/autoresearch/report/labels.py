"""Where the labels of a chart go, so that none lies on another: plain geometry in pixels."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DISTANCES = (9, 20, 34, 50, 70, 95, 125)  # points between a marker and its label
SLANTS = (0.0, 0.5, -0.5, 1.2, -1.2, 2.4, -2.4)  # sideways, in units of the distance
MOST_LABELS = 25  # more is a page to read, and no chart
POINT_COST = 14.0  # hiding one point is as bad as a label this many points further away
CLEARANCE = 4.0  # points around a label in which a marker is touched
MOST_COST = 170.0  # a label further off, or on top of more, helps nobody
FAR_SIDE_COST = 10.0  # on the side of the misses there is less room and more to hide

Point = tuple[float, float]
Line = tuple[Point, Point]
Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text of known size that belongs to the marker at ``x``, ``y``."""

    text: str
    x: float
    y: float
    width: float
    height: float
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A label with its place, and where the line from its marker ends."""

    label: Label
    box: Box
    anchor: Point

    @property
    def left(self) -> float:
        return self.box[0]

    @property
    def middle(self) -> float:
        return (self.box[1] + self.box[3]) / 2


def place_labels(
    labels: Iterable[Label],
    points: Sequence[Point],
    frame: Box,
    scale: float,
    *,
    better_is_up: bool,
) -> list[Placed]:
    """Give each label in turn the best place that is still free; those without one are left out.

    No two labels overlap, none leaves ``frame``, none lies on another's line, no two lines cross, and as
    few ``points`` as possible are hidden. ``scale`` is the number of pixels to a point (1/72 inch).
    """
    by_x = sorted(points)
    placed: list[Placed] = []
    for label in labels:
        if len(placed) == MOST_LABELS:
            break
        candidates = sorted(_candidates(label, scale, better_is_up), key=_cost)
        best = _best_place(candidates, placed, by_x, frame, CLEARANCE * scale)
        if best is not None:
            placed.append(best)
    return placed


def _best_place(
    candidates: Iterable[tuple[float, Placed]],
    placed: Sequence[Placed],
    by_x: Sequence[Point],
    frame: Box,
    clearance: float,
) -> Placed | None:
    """The free one of ``candidates``, which come cheapest first, that costs least with what it hides."""
    best, least = None, MOST_COST
    for cost, candidate in candidates:
        if cost >= least:
            break
        if _inside(candidate.box, frame) and not any(_collide(candidate, other) for other in placed):
            whole_cost = cost + POINT_COST * _hidden(candidate, by_x, clearance)
            if whole_cost < least:
                best, least = candidate, whole_cost
    return best


def _cost(candidate: tuple[float, Placed]) -> float:
    return candidate[0]


def _candidates(label: Label, scale: float, better_is_up: bool) -> Iterable[tuple[float, Placed]]:
    """Places around the marker with what each one costs, before anything else is looked at."""
    for side in (1, -1) if better_is_up else (-1, 1):
        far_cost = 0.0 if (side > 0) == better_is_up else FAR_SIDE_COST
        for distance in DISTANCES:
            middle = label.y + side * (distance * scale + label.height / 2)
            for slant in SLANTS:
                for align in (0.0, 1.0, 0.5):  # the share of the label that lies to the left
                    left = label.x + slant * distance * scale - align * label.width
                    box = (left, middle - label.height / 2, left + label.width, middle + label.height / 2)
                    anchor = (min(max(label.x, box[0]), box[2]), middle - side * label.height / 2)
                    cost = distance * (1 + 0.4 * abs(slant)) + far_cost + (4.0 if align == 0.5 else 0.0)
                    yield cost, Placed(label=label, box=box, anchor=anchor)


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _collide(one: Placed, other: Placed) -> bool:
    return (
        _overlap(one.box, other.box)
        or _crosses(one, other.box)
        or _crosses(other, one.box)
        or _lines_cross(_line(one), _line(other))
    )


def _line(placed: Placed) -> Line:
    return (placed.label.x, placed.label.y), placed.anchor


def _lines_cross(one: Line, other: Line) -> bool:
    """Whether each line has the ends of the other on both of its sides."""
    return all(_turn(*a, b[0]) * _turn(*a, b[1]) < 0 for a, b in ((one, other), (other, one)))


def _turn(start: Point, end: Point, to: Point) -> float:
    """Above 0 where ``to`` lies to the left of the way from ``start`` to ``end``."""
    return (end[0] - start[0]) * (to[1] - start[1]) - (end[1] - start[1]) * (to[0] - start[0])


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _crosses(placed: Placed, box: Box, steps: int = 12) -> bool:
    """Whether the line from the marker to its label passes through ``box``."""
    (x0, y0), (x1, y1) = (placed.label.x, placed.label.y), placed.anchor
    return any(
        box[0] <= x0 + (x1 - x0) * at / steps <= box[2] and box[1] <= y0 + (y1 - y0) * at / steps <= box[3]
        for at in range(steps + 1)
    )


def _hidden(candidate: Placed, by_x: Sequence[Point], clearance: float) -> int:
    """How many of the points, sorted by x, the label would touch."""
    left, bottom, right, top = candidate.box
    first, end = bisect_left(by_x, left - clearance, key=_x), bisect_right(by_x, right + clearance, key=_x)
    return sum(bottom - clearance <= y <= top + clearance for _, y in by_x[first:end])


def _x(point: Point) -> float:
    return point[0]
