"""What a figure is made of: means, pages, and what is said of what it leaves out."""

from __future__ import annotations

import math

import pytest

from qbench.claims.subject import Subject
from qbench.report.figures import theme
from qbench.report.figures.figure import Axis, Curve, Panel
from qbench.report.figures.paging import MOST_PANELS, Sheet, brief, pages
from qbench.store.record import Record

LINEAR, LOG = Axis("x"), Axis("y", "log")
# With orange and sky as dark as a contrast of 3 with white takes.
OKABE_ITO = {"#000000", "#BD8200", "#2F93D1", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#777777"}


def panel(*curves: Curve, x: Axis = LINEAR, y: Axis = LINEAR) -> Panel:
    return Panel("one", x, y, curves)


def test_the_mean_is_arithmetic_but_along_a_logarithmic_x() -> None:
    first, second = Curve("rtn", 0, (1.0, 4.0), (2.0, 6.0), (0, 1)), Curve("rtn", 1, (4.0, 9.0), (4.0, 8.0), (0, 1))
    (mean,) = panel(first, second, x=LOG, y=LOG).means()
    assert mean.x == pytest.approx((2.0, 6.0))
    assert mean.y == (3.0, 7.0)
    (mean,) = panel(first, second, y=LOG).means()
    assert mean.x == (2.5, 6.5)


def test_a_mean_is_taken_only_where_all_seeds_have_a_value() -> None:
    (mean,) = panel(Curve("rtn", 0, (1, 2, 3), (1, 1, 1)), Curve("rtn", 1, (2, 3), (3, 5))).means()
    assert (mean.x, mean.y, mean.seed) == ((2, 3), (2, 3), 2)


def test_means_are_of_each_series_by_itself() -> None:
    means = panel(Curve("rtn", 0, (1,), (1,)), Curve("gptq", 0, (1,), (5,))).means()
    assert [(mean.series, mean.y) for mean in means] == [("rtn", (1,)), ("gptq", (5,))]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_what_a_logarithmic_axis_has_no_place_for_is_counted_in_the_notes(value: float) -> None:
    sheet = Sheet(Subject("m", "mse", (0,)), [panel(Curve("rtn", 0, (1, 2), (1.0, value)), y=LOG)])
    (figure,) = pages("C1", "title", ["note"], [sheet])
    assert figure.notes == ("note", "Not shown: 1 value at or below 0, or not finite.")


def test_what_the_frame_cuts_is_counted_in_the_notes() -> None:
    cut = panel(Curve("rtn", 0, (1, 2, 3), (0.0, -2.0, -3.0)), y=Axis("G", low=-1))
    (figure,) = pages("C1", "title", [], [Sheet(Subject("m", "mse", (0,)), [cut])])
    assert figure.notes == ("2 values lie beyond the frame.",)


def test_a_panel_without_any_place_is_no_figure() -> None:
    empty = [panel(), panel(Curve("rtn", 0, (1,), (0.0,)), y=LOG)]
    assert not pages("C1", "title", [], [Sheet(Subject("m", "mse", (0,)), empty)])


def test_many_panels_make_several_figures_and_no_subject_is_torn() -> None:
    two = [panel(Curve("rtn", 0, (1,), (1,))), panel(Curve("rtn", 0, (2,), (2,)))]
    sheets = [Sheet(Subject(f"m{i}", "mse", (0,)), two) for i in range(7)]
    figures = pages("C1", "title", [], sheets)
    assert [figure.name for figure in figures] == ["C1", "C1_2", "C1_3"]
    assert [len(figure.panels) for figure in figures] == [6, 6, 2]
    assert max(len(figure.panels) for figure in figures) <= MOST_PANELS
    assert figures[1].of == "Models m3, m4, m5; quantizer mse; seed 0."


def test_labels_have_short_numbers() -> None:
    assert brief("lattice[step=0.3897114317,unit=absolute]") == "lattice[step=0.3897,unit=absolute]"
    assert brief("llama-1m/mse") == "llama-1m/mse"


def test_losses_of_landscapes_are_not_in_nats() -> None:
    record = Record(cell_id="a", key={}, axes={}, suite="s", status="ok", facts={"valley": {}})
    one = panel(Curve("rtn", 0, (1,), (1,)), y=Axis("excess (nats)"))
    (figure,) = pages("C1", "title", [], [Sheet(Subject("valley", "lattice", (0,), (record,)), [one])])
    assert figure.panels[0].y.title == "excess (loss units)"


def test_series_differ_without_colour() -> None:
    arms = ["ste_qat", "noise_grad", "latent_grad", "random_grad", "ft_then_ptq"]
    mixed = ["rtn", "flipped", "permuted", "gaussian", "noise"]
    for names in (["rtn", "gptq", "adaround", "ste_qat"], arms, mixed, [f"checkpoint {i}" for i in range(8)]):
        looks = theme.styles(names)
        assert len({style.shape for style in looks.values()}) == len(names)
        assert len({style.dash for style in looks.values()}) == len(names)
        assert len({style.colour for style in looks.values()}) == len(names)
        assert {style.colour for style in looks.values()} <= OKABE_ITO
    assert len({(one.colour, one.shape) for one in theme.styles(f"{i:02}" for i in range(30)).values()}) == 30


def test_the_look_of_series_does_not_depend_on_their_order() -> None:
    names = ["b", "rtn", "a", "gptq"]
    assert list(theme.styles(names).items()) == list(theme.styles(reversed(names)).items())
