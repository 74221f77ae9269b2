"""Errors that stand in for a rounding error: what they keep of it, and what is drawn anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qbench.geometry.stand_in import Move, matched, shrinkage


def layer(rows: int = 5, columns: int = 64) -> tuple[Tensor, Tensor]:
    """Return weights and an error that takes from them, as clipping does."""
    generator = torch.Generator().manual_seed(3)
    full = torch.randn(rows, columns, generator=generator)
    error = 0.1 * torch.randn(rows, columns, generator=generator) - 0.2 * full
    return full, error


def drawn(full: Tensor, error: Tensor, seed: int = 0) -> Tensor:
    return matched(full, error, torch.Generator().manual_seed(seed))


def test_shrinkage_is_the_part_along_the_weights() -> None:
    full, error = layer()
    part = shrinkage(full, error)
    assert part.shape == (5, 1)
    assert (part < -0.1).all()
    rest = error - part * full
    assert torch.allclose((rest * full).sum(dim=1), torch.zeros(5), atol=1e-4)
    assert torch.allclose(shrinkage(full, -0.25 * full), torch.full((5, 1), -0.25))


def test_each_weight_loses_as_much_beside_the_shrinkage_with_a_sign_of_its_own() -> None:
    full, error = layer()
    along = shrinkage(full, error) * full
    signs = (drawn(full, error) - along) / (error - along)
    assert torch.allclose(signs.abs(), torch.ones_like(signs), atol=1e-3)
    assert 0.3 < float((signs > 0).float().mean()) < 0.7
    assert not torch.equal(signs[0].sign(), signs[1].sign())


def test_norm_and_shrinkage_are_those_of_the_error_up_to_the_noise_of_the_signs() -> None:
    full, error = layer(columns=1024)
    along = shrinkage(full, error)
    rest = error - along * full
    # e' = a w + s r: both e' . w - e . w and (|e'|^2 - |e|^2) / 2 a are the sum of s r w, which has no mean.
    noise = (rest * full).square().sum(dim=1).sqrt()
    cross = []
    for seed in range(200):
        found = drawn(full, error, seed)
        product = ((found - error) * full).sum(dim=1)
        square = found.square().sum(dim=1) - error.square().sum(dim=1)
        assert torch.allclose(square, 2 * along[:, 0] * product, rtol=1e-3, atol=1e-2)
        cross.append(product / noise)
    scores = torch.stack(cross)
    assert (scores.mean(dim=0).abs() < 4 / 200**0.5).all()
    assert torch.allclose(scores.square().mean(dim=0), torch.ones(5), atol=0.4)


def test_an_error_that_takes_nothing_keeps_each_size() -> None:
    full = torch.tensor([[1.0, 1.0, -2.0, 0.0]])
    error = torch.tensor([[0.5, -0.5, 0.0, 0.25]])
    assert torch.equal(drawn(full, error).abs(), error.abs())


def test_rows_of_zeros_have_no_direction() -> None:
    full, error = layer()
    full[1], full[2], error[2] = 0.0, 0.0, 0.0
    assert float(shrinkage(full, error)[1]) == 0
    found = drawn(full, error)
    assert torch.equal(found[1].abs(), error[1].abs())
    assert not found[2].any()
    assert torch.isfinite(found).all()


def test_a_draw_is_its_seed_s() -> None:
    full, error = layer()
    assert torch.equal(drawn(full, error, 5), drawn(full, error, 5))
    assert not torch.equal(drawn(full, error, 5), drawn(full, error, 6))


@pytest.mark.parametrize("layers", [None, frozenset({"a", "b"})])
def test_a_move_is_of_all_layers_or_of_some(layers: frozenset[str] | None) -> None:
    move = Move("matched", 0, layers)
    assert move.moves("a")
    assert move.moves("c") == (layers is None)
