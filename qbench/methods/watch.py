"""Who may look on while a model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from qbench.methods.latent import LatentWeight


class Watch(Protocol):
    """Looks at weights in training, and changes nothing: neither weights nor any generator of random numbers."""

    def wants(self, step: int) -> bool:
        """Return whether the weights after so many updates are to be seen."""

    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        """Look at the weights after `step` updates: `LatentWeight.latent`, and `LatentWeight.deployed()`."""
