"""Lanczos beside a full decomposition, on matrices that are kind and unkind to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qbench.geometry.lanczos import Spectrum, largest


def matrix(values: list[float] | Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.as_tensor(values, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    return basis @ torch.diag(values) @ basis.T


def solve(a: Tensor, top: int, iterations: int, dtype: torch.dtype = torch.float64) -> Spectrum:
    generator = torch.Generator().manual_seed(1)
    return largest(lambda v: (a @ v.double()).to(v), torch.zeros(len(a), dtype=dtype), top, iterations, generator)


def test_the_top_of_a_falling_spectrum_is_found_long_before_the_last_product() -> None:
    a = matrix(torch.logspace(2, -3, 120))
    found = solve(a, 5, 40, torch.float32)
    wanted = torch.linalg.eigh(a)
    torch.testing.assert_close(found.values, wanted.eigenvalues.flip(0)[:5], rtol=1e-5, atol=0)
    overlap = found.vectors.double() @ wanted.eigenvectors[:, -5:]
    torch.testing.assert_close(overlap @ overlap.T, torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_are_orthonormal_after_the_spectrum_has_converged(dtype: torch.dtype) -> None:
    a = matrix([100.0, 50.0, 20.0] + [1e-3 * i for i in range(60)])
    found = solve(a, 10, 50, dtype)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(10, dtype=dtype), rtol=0, atol=1e-5)


def test_residuals_say_how_good_each_pair_is() -> None:
    a = matrix(torch.linspace(0, 1, 200))
    found = solve(a, 6, 20)
    actual = (found.vectors @ a - found.values[:, None] * found.vectors).norm(dim=1)
    torch.testing.assert_close(found.residuals, actual, rtol=1e-6, atol=1e-10)
    assert actual.max() > 1e-3  # a spectrum so even has not converged


def test_equal_eigenvalues_are_all_found() -> None:
    found = solve(matrix([5.0, 5.0, 5.0, 1.0, 1.0, 0.0, 0.0, 0.0]), 4, 8)
    assert found.values.tolist() == pytest.approx([5, 5, 5, 1], abs=1e-9)


def test_largest_is_not_largest_in_size() -> None:
    assert solve(matrix([-9.0, 2.0, 1.0, -3.0]), 2, 4).values.tolist() == pytest.approx([2, 1])


def test_nothing_but_zeros() -> None:
    found = solve(torch.zeros(6, 6, dtype=torch.float64), 2, 4)
    assert found.values.tolist() == [0, 0] and torch.isfinite(found.vectors).all()


def test_no_more_than_there_is() -> None:
    assert len(solve(matrix([3.0, 2.0, 1.0]), 16, 40).values) == 3
    assert len(solve(matrix(torch.arange(30)), 16, 4).values) == 4


def test_the_share_of_a_vector_in_the_space() -> None:
    a = matrix([4.0, 3.0, 1.0, 0.5])
    found, vectors = solve(a, 2, 4), torch.linalg.eigh(a).eigenvectors
    assert found.share(vectors[:, 3] * 7) == pytest.approx(1)
    assert found.share(vectors[:, 0]) == pytest.approx(0, abs=1e-12)
    assert found.share(3 * vectors[:, 3] + 4 * vectors[:, 1]) == pytest.approx(9 / 25)
    assert found.share(torch.zeros(4, dtype=torch.float64)) == 0
