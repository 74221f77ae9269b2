"""The layer error from second moments, against the same error from the inputs themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qbench.methods.stage import Gram
from qbench.methods.stage_error import output_power, stage_error


def drawn(apart: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    quantized = weight + 0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    wanted = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    seen = wanted + apart * torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    return weight, quantized, wanted, seen


@pytest.mark.parametrize("apart", [0.0, 1e-3, 0.5])
def test_is_the_mean_square_of_the_output_error(apart: float) -> None:
    weight, quantized, wanted, seen = drawn(apart)
    gram = Gram(*(product[None] / 200 for product in (seen.T @ seen, wanted.T @ seen, wanted.T @ wanted)))
    expected = (wanted @ weight.T - seen @ quantized.T).square().mean(dim=0)
    torch.testing.assert_close(stage_error(weight, quantized, gram)[0], expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(output_power(weight, gram)[0], (wanted @ weight.T).square().mean(dim=0))


def test_without_a_full_precision_stream_both_inputs_are_the_same() -> None:
    weight, quantized, wanted, _ = drawn(0.0)
    hessian = (wanted.T @ wanted / 200)[None]
    expected = (wanted @ (weight - quantized).T).square().mean(dim=0)
    torch.testing.assert_close(stage_error(weight, quantized, Gram(hessian, hessian, hessian))[0], expected)


def test_small_errors_keep_their_digits_in_float32() -> None:
    weight, quantized, wanted, _ = drawn(0.0)
    close = weight + 1e-5 * (quantized - weight)
    hessian = (wanted.T @ wanted / 200)[None]
    exact = stage_error(weight, close, Gram(hessian, hessian, hessian))
    rounded = hessian.float()
    found = stage_error(weight.float(), close.float(), Gram(rounded, rounded.clone(), rounded.clone()))
    # What is left is the rounding of the weights' own difference: 2^-24 of a weight in 1e-6 of one.
    torch.testing.assert_close(found.double(), exact, rtol=0.25, atol=0.0)
