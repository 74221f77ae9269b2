"""Who may look on while a model is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from qbench.methods.latent import LatentWeight


class Watch(Protocol):
    """Looks at weights in training, and changes nothing: neither weights nor any generator of random numbers.

    A training that goes on from a checkpoint gives it back what it had seen before that.
    """

    def wants(self, step: int) -> bool:
        """Return whether the weights after so many updates are to be seen."""

    def see(self, step: int, weights: Sequence[LatentWeight]) -> None:
        """Look at the weights after `step` updates: `LatentWeight.latent`, and `LatentWeight.deployed()`."""

    def state(self) -> dict[str, Any]:
        """Return what it has seen so far, as JSON can hold it."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned in an earlier process."""
