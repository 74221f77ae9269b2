"""Where words stand beside points, so that they hide neither each other nor the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from qbench.report.figures import theme
from qbench.report.figures.encoding import Layer, Row, rounded, word
from qbench.report.figures.figure import Axis, Panel

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, pixels."""

_LETTER, _HEIGHT, _ROOM = 5.5, 11.0, 8.0  # pixels: of a letter, of a line of words, and between a point and its word
_PADDING = 7.0  # of the axes, pixels
_MARGIN = 80.0  # to the right of the frame, pixels: the next frame makes room
_FARTHER = 8.0  # square pixels of hidden things that a side is worth avoiding for

# How words lie to their point: alignment, and by how many pixels they are moved.
_SIDES: tuple[tuple[str, float, float], ...] = (
    ("left", _ROOM, 0.0),
    ("left", _ROOM, -_HEIGHT),
    ("right", -_ROOM, 0.0),
    ("left", _ROOM, _HEIGHT),
    ("right", -_ROOM, -_HEIGHT),
    ("right", -_ROOM, _HEIGHT),
    ("center", 0.0, -1.3 * _HEIGHT),
    ("center", 0.0, 1.3 * _HEIGHT),
    ("left", _ROOM, -2 * _HEIGHT),
    ("left", _ROOM, 2 * _HEIGHT),
    ("right", -_ROOM, -2 * _HEIGHT),
    ("right", -_ROOM, 2 * _HEIGHT),
)


def words_beside(panel: Panel, size: tuple[int, int]) -> list[Layer]:
    """Return the layers of the labels of trends, each beside the last of its points.

    Parameters
    ----------
    panel : Panel
        Any.
    size : (int, int)
        Of the frame, pixels.
    """
    ends = [
        (trend.label, one.x, one.y)
        for trend in panel.trends
        if trend.label
        for one in trend.estimates[-1:]
        if panel.x.shows(one.x) and panel.y.shows(one.y)
    ]
    if not ends:
        return []
    across = [x for x, _ in panel.places]
    reach = [end for t in panel.trends for one in t.estimates for end in (one.y, one.low, one.high) if end is not None]

    def at(x: float, y: float) -> tuple[float, float]:
        return _pixel(panel.x, x, across, size[0]), size[1] - _pixel(panel.y, y, reach, size[1])

    points = [at(x, y) for x, y in panel.places if panel.x.shows(x) and panel.y.shows(y)]
    marks = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    sides = place_words(
        [label for label, _, _ in ends], [at(x, y) for _, x, y in ends], [*marks, *_lines(panel, at)], size
    )
    layers = []
    for side in dict.fromkeys(sides):
        align, dx, dy = side
        rows: list[Row] = [
            {"x": rounded(x), "y": rounded(y), "name": label}
            for (label, x, y), own in zip(ends, sides, strict=True)
            if own == side
        ]
        layers.append(word(rows, theme.INK, {"align": align, "dx": dx, "dy": dy}))
    return layers


def place_words(
    names: Sequence[str], points: Sequence[tuple[float, float]], marks: Sequence[Box], size: tuple[int, int]
) -> list[tuple[str, float, float]]:
    """Return on which side of its point each word stands: greedy, from the right, in a fixed order.

    Parameters
    ----------
    names : sequence of str
        The words.
    points : sequence of (float, float)
        Their points, pixels from the upper left corner.
    marks : sequence of Box
        What words should not hide.
    size : (int, int)
        Of the frame, pixels.
    """
    taken: list[Box] = []
    found = {}
    for name, point in sorted(zip(names, points, strict=True), key=lambda one: (-one[1][0], one[1][1], one[0])):
        boxes = {side: _box(name, point, side) for side in _SIDES}
        cost = {
            side: sum(_overlap(box, mark) for mark in marks)
            + 4 * sum(_overlap(box, other) for other in taken)
            + _beyond(box, size)
            for side, box in boxes.items()
        }
        best = min(_SIDES, key=lambda side: round(cost[side]) + _FARTHER * _SIDES.index(side))
        taken.append(boxes[best])
        found[name, point] = best
    return [found[name, point] for name, point in zip(names, points, strict=True)]


def _lines(panel: Panel, at: Callable[[float, float], tuple[float, float]]) -> list[Box]:
    """Return the boxes of fronts and whiskers."""
    boxes = []
    for trend in panel.trends:
        for one in trend.estimates:
            if one.low is not None and one.high is not None:
                (x, bottom), (_, top) = at(one.x, one.low), at(one.x, one.high)
                boxes.append((x - 1, top, x + 1, bottom))
    for front in panel.fronts:
        corners = [at(x, y) for x, y in zip(front.x, front.y, strict=True)]
        for (x, y), (next_x, next_y) in pairwise(corners):
            boxes += [(x, y - 2, next_x, y + 2), (next_x - 1, y, next_x + 1, next_y)]
    return boxes


def _pixel(axis: Axis, value: float, everything: Sequence[float], length: int) -> float:
    """Return where a value is drawn on an axis, pixels from its lower end."""
    at = [axis.stretched(one) for one in everything if axis.shows(one)]
    low, high = min(at), max(at)
    return _PADDING + (length - 2 * _PADDING) * (axis.stretched(value) - low) / ((high - low) or 1.0)


def _box(name: str, point: tuple[float, float], side: tuple[str, float, float]) -> Box:
    align, dx, dy = side
    width = _LETTER * len(name)
    left = point[0] + dx - {"left": 0.0, "right": width, "center": width / 2}[align]
    return left, point[1] + dy - _HEIGHT / 2, left + width, point[1] + dy + _HEIGHT / 2


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _beyond(box: Box, size: tuple[int, int]) -> float:
    """Return how much of a box lies out of the frame, where other frames and their axes are."""
    inside = _overlap(box, (0.0, 0.0, size[0] + _MARGIN, float(size[1])))
    return (box[2] - box[0]) * (box[3] - box[1]) - inside
