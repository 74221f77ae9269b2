"""Colours can be seen, on light ground and on dark."""

from __future__ import annotations

import re
from typing import Any

import pytest

from qbench.report.figures import theme
from qbench.report.figures.drawing import specification
from qbench.report.figures.write import figures_of
from qbench.store.record import Record

WORDS, MARKS = 4.5, 3.0  # least contrast (WCAG 2.2, 1.4.3 and 1.4.11)
OF_WORDS = {theme.INK, theme.SOFT}
OF_GROUND = {theme.GROUND, theme.FAINT, theme.FRAME, theme.SHADE}  # behind or around what is to be seen


def luminance(colour: str) -> float:
    hexed = {"white": "#ffffff"}.get(colour, colour)
    parts = [int(hexed[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_its_definition() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colour", sorted(theme.DARK.keys() - OF_GROUND))
def test_every_colour_stands_out_on_both_grounds(colour: str) -> None:
    least = WORDS if colour in OF_WORDS else MARKS
    assert contrast(colour, theme.GROUND) >= least
    assert contrast(theme.DARK[colour], theme.DARK[theme.GROUND]) >= least


def test_colours_of_marks_differ_on_dark_ground_too() -> None:
    assert len(set(theme.DARK.values())) == len(theme.DARK)


def colours_in(part: Any) -> set[str]:
    if isinstance(part, dict):
        return {colour for value in part.values() for colour in colours_in(value)}
    if isinstance(part, list):
        return {colour for value in part for colour in colours_in(value)}
    return {part} if isinstance(part, str) and (part == "white" or re.fullmatch("#[0-9A-Fa-f]{6}", part)) else set()


def test_no_figure_has_a_colour_without_one_for_dark_ground(records: list[Record]) -> None:
    found = {colour for figure in figures_of(records) for colour in colours_in(specification(figure))}
    assert theme.INK in found
    assert found <= theme.DARK.keys()


def test_methods_that_train_are_hollow_and_variants_share_a_colour() -> None:
    methods = {
        "rtn": ("rtn", False),
        "gptq": ("gptq", False),
        "gptq[bn=fold]": ("gptq[bn=fold]", False),
        "mine": ("mine", False),
        "yours": ("yours", True),
        "ste_qat[steps=9]": ("ste_qat", True),
        "ste_qat[steps=99]": ("ste_qat[steps=99]", True),
        "lsq": ("lsq", True),
    }
    looks = theme.looks_of_methods(methods)
    assert {label for label, look in looks.items() if look.hollow} == {
        label for label, (_, qat) in methods.items() if qat
    }
    assert looks["gptq"].colour == looks["gptq[bn=fold]"].colour
    assert looks["mine"].colour not in {look.colour for label, look in looks.items() if label != "mine"}
    assert len({(look.shape, look.hollow) for look in looks.values()}) == len(methods)
    assert len({look.dash for look in looks.values()}) == len(methods)
    assert looks["gptq"] == theme.looks_of_methods({"gptq": ("gptq", False)})["gptq"]
