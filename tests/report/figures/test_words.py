"""Words beside points do not hide each other."""

from __future__ import annotations

import random

from qbench.report.figures.estimates import Estimate, Trend
from qbench.report.figures.figure import Axis, Panel
from qbench.report.figures.words import place_words, words_beside

SIZE = (340, 240)


def box(name: str, point: tuple[float, float], side: tuple[str, float, float]) -> tuple[float, float, float, float]:
    align, dx, dy = side
    width = 5.5 * len(name)
    left = point[0] + dx - {"left": 0.0, "right": width, "center": width / 2}[align]
    return left, point[1] + dy - 5, left + width, point[1] + dy + 5


def test_words_of_points_close_together_stand_apart() -> None:
    names = ["lsq", "ste_qat", "brecq"]
    points = [(300.0, 100.0), (304.0, 101.0), (302.0, 103.0)]
    boxes = [box(*one) for one in zip(names, points, place_words(names, points, [], SIZE), strict=True)]
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert min(one[2], other[2]) <= max(one[0], other[0]) or min(one[3], other[3]) <= max(one[1], other[1])


def test_where_words_stand_does_not_depend_on_their_order() -> None:
    draw = random.Random(1)
    names = [f"m{i}" for i in range(8)]
    points = [(draw.uniform(0, 340), draw.uniform(0, 240)) for _ in names]
    sides = dict(zip(names, place_words(names, points, [], SIZE), strict=True))
    mixed = draw.sample(list(zip(names, points, strict=True)), 8)
    again = place_words([name for name, _ in mixed], [point for _, point in mixed], [], SIZE)
    assert dict(zip([name for name, _ in mixed], again, strict=True)) == sides


def test_every_label_is_written_once_at_its_point() -> None:
    trends = tuple(Trend(f"m{i}", (Estimate(10.0**i, 2.0**-i, 0.9 * 2.0**-i, 2.0**-i),), f"m{i}") for i in range(5))
    panel = Panel("", Axis("x", "log"), Axis("y"), (), joined=False, trends=trends)
    rows = [row for layer in words_beside(panel, SIZE) for row in layer["data"]["values"]]
    assert sorted((row["name"], row["x"], row["y"]) for row in rows) == [(f"m{i}", 10.0**i, 2.0**-i) for i in range(5)]
