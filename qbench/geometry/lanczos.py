"""The largest eigenvalues of a symmetric matrix that is known by its products only (Lanczos, 1950)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# A new direction this much shorter than the matrix is large is rounding error: the space so far is invariant.
_INVARIANT = 1e-5


@dataclass(frozen=True)
class Spectrum:
    """Part of a matrix's eigenvectors.

    Attributes
    ----------
    values : Tensor of shape (k,), float64
        Eigenvalues, the largest first.
    vectors : Tensor of shape (k, size)
        Of length 1, orthogonal to one another.
    residuals : Tensor of shape (k,), float64
        ``|A v - a v|``: the matrix has an eigenvalue within this of each.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor

    def share(self, vector: Tensor) -> float:
        """Return the part of a vector's squared length that lies in the space of the eigenvectors."""
        whole = float(vector.double().square().sum())
        return float((self.vectors @ vector).double().square().sum()) / whole if whole > 0 else 0.0


def largest(
    product: Callable[[Tensor], Tensor], start: Tensor, top: int, iterations: int, generator: torch.Generator
) -> Spectrum:
    """Return the largest eigenvalues of a matrix with their eigenvectors.

    Parameters
    ----------
    product : callable
        The matrix times a vector of shape (size,).
    start : Tensor of shape (size,)
        Gives type, device and size.
    top : int
        How many; fewer where the size or the iterations are.
    iterations : int
        Products at most.
    generator : torch.Generator
        Draws the first vector, and a new one where the space is invariant before all products are made.

    Notes
    -----
    Each new vector is made orthogonal to all before it, twice: without that, rounding lets eigenvectors that have
    converged come back as copies. After m products the cost of that is ``8 m size`` FLOP.
    """
    size = len(start)
    count = min(iterations, size)
    basis = torch.empty(count, size, dtype=start.dtype, device=start.device)
    diagonal, beside = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    vector, largest_seen = _fresh(basis[:0], generator), 0.0
    for step in range(count):
        basis[step] = vector
        image = product(vector)
        diagonal[step] = float(image.double() @ vector.double())
        rest = _orthogonal(image, basis[: step + 1])
        length = float(rest.double().norm())
        largest_seen = max(largest_seen, abs(float(diagonal[step])), length)
        if length > _INVARIANT * largest_seen:
            beside[step] = length
            vector = rest / length
        elif step + 1 < count:
            vector = _fresh(basis[: step + 1], generator)
    small = torch.diag(diagonal) + torch.diag(beside[:-1], 1) + torch.diag(beside[:-1], -1)
    values, vectors = torch.linalg.eigh(small)
    kept = min(top, count)
    own = vectors[:, -kept:].flip(1)
    residuals = beside[-1] * own[-1].abs() if count < size else torch.zeros(kept, dtype=torch.float64)
    return Spectrum(values[-kept:].flip(0), own.T.to(basis) @ basis, residuals)


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """Return what of a vector is orthogonal to a basis of orthogonal unit vectors."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector


def _fresh(basis: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random unit vector orthogonal to a basis."""
    drawn = torch.randn(basis.shape[1], generator=generator, dtype=torch.float64).to(basis)
    found = _orthogonal(drawn, basis)
    length: Tensor = found.norm()
    return found / length
