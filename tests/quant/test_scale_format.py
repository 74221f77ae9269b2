"""What scales are rounded to where they are stored in eight bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qbench.quant.scale_format import FLOAT32, PowerOfTwo, ScaledE4M3, ScaleFormat

scales = st.lists(st.floats(2**-20, 2**20, width=32), min_size=1, max_size=20).map(torch.tensor)
FORMATS: list[ScaleFormat] = [FLOAT32, PowerOfTwo(), ScaledE4M3(2.0**15), ScaledE4M3(0.123)]


@given(scales)
@pytest.mark.parametrize("kept", FORMATS, ids=lambda kept: kept.name)
def test_what_is_kept_stays(kept: ScaleFormat, scale: torch.Tensor) -> None:
    once = kept.round(scale)
    assert torch.equal(kept.round(once), once)
    assert once.dtype == scale.dtype and (once > 0).all() and torch.isfinite(once).all()


@given(scales)
def test_powers_of_two_are_the_nearest_by_exponent(scale: torch.Tensor) -> None:
    found = PowerOfTwo().round(scale).double()
    mantissa, _ = torch.frexp(found)
    assert (mantissa == 0.5).all()
    assert ((found / scale.double()).log2().abs() <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("exponent", [-126, -100, -1, 0, 1, 99, 127])
def test_powers_of_two_are_exact(exponent: int) -> None:
    assert PowerOfTwo().round(torch.tensor(2.0) ** exponent).item() == 2.0**exponent


def test_e4m3_has_sixteen_steps_an_octave_pair() -> None:
    kept = ScaledE4M3(1.0)
    assert kept.round(torch.tensor([1.0, 1.0625, 1.07, 448.0, 1000.0])).tolist() == [1.0, 1.0, 1.125, 448.0, 448.0]
    # Nothing becomes 0: a block of tiny weights keeps a scale.
    assert kept.round(torch.tensor([1e-9])).tolist() == [2.0**-6]


def test_bits() -> None:
    assert [(kept.bits, kept.shared_bits) for kept in FORMATS] == [(32, 0), (8, 0), (8, 32), (8, 32)]
