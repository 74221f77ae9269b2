"""Lines of many places look the same with fewer."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from qbench.report.figures.drawing import specification
from qbench.report.figures.figure import Axis, Curve, Figure, Panel

HEIGHT = 310  # pixels of a frame that is alone


def drawn(panel: Panel) -> list[tuple[float, float]]:
    """Return the places of the thick line of a panel."""
    spec = specification(Figure("x", "x", "", (), (panel,), 1))
    (line,) = [one for one in spec["layer"] if one["mark"]["type"] == "line"]
    (row,) = line["data"]["values"]
    return list(zip(row["x"], row["y"], strict=True))


def height_at(places: list[tuple[float, float]], x: float) -> float:
    after = next(place for place, (at, _) in enumerate(places) if at >= x)
    if places[after][0] == x:
        return places[after][1]
    (x0, y0), (x1, y1) = places[after - 1 : after + 1]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@pytest.mark.parametrize("seed", range(5))
def test_a_line_is_nowhere_half_a_pixel_from_what_was_measured(seed: int) -> None:
    draw = random.Random(seed)
    x = tuple(float(step) for step in range(400))
    y = tuple(math.exp(-step / 60) + 0.02 * math.sin(step / 9) + 0.0005 * draw.random() for step in x)
    places = drawn(Panel("", Axis("x"), Axis("y"), (Curve("rtn", 0, x, y),)))
    pixel = (max(y) - min(y)) / HEIGHT
    assert len(places) < 150
    assert (places[0][0], places[-1][0]) == (0, 399)
    # Along a steep line a place may be half a pixel to the side as well.
    steepest = max(abs(b - a) for a, b in pairwise(y))
    most = 0.5 * pixel + 0.5 * steepest * 400 / 500 + 1e-4
    assert max(abs(height_at(places, at) - value) for at, value in zip(x, y, strict=True)) <= most


def test_corners_of_a_line_stay() -> None:
    x = tuple(float(step) for step in range(200))
    y = tuple(float(step % 50 == 0) for step in range(200))
    assert {at for at, value in drawn(Panel("", Axis("x"), Axis("y"), (Curve("rtn", 0, x, y),))) if value} == {
        0.0,
        50.0,
        100.0,
        150.0,
    }


def test_a_short_line_keeps_every_place() -> None:
    x = tuple(float(step) for step in range(20))
    assert drawn(Panel("", Axis("x"), Axis("y"), (Curve("rtn", 0, x, x),))) == list(zip(x, x, strict=True))
