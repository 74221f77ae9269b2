"""A landscape with everything that a task offers, so that methods for networks run on it as they are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qbench.geometry import landscape_theory as theory
from qbench.geometry.landscape import Landscape
from qbench.tasks.evaluation import Evaluation

if TYPE_CHECKING:
    from qbench.geometry.valley import Valley


class WeightRow(nn.Module):
    """A linear layer with one output, whose weights are the point of a landscape.

    Parameters
    ----------
    weights : Tensor of shape (d,)
        The point; kept in float32.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.line = nn.Linear(len(weights), 1, bias=False, device=weights.device, dtype=torch.float32)
        with torch.no_grad():
            self.line.weight.copy_(weights)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the products of inputs of shape (n, d) with the weights, of shape (n, 1)."""
        found: Tensor = self.line(inputs)
        return found


class ValleyTask:
    """A landscape as a task.

    A batch for `loss` is the noise that is added to the gradient, of shape (d,), or one of the calibration batches, of
    shape (n, d), which the loss does not depend on. Calibration inputs are there for what their second moments are:
    see `Landscape.metric_factor`.

    Parameters
    ----------
    spec : Valley
        Which landscape.
    seed : int
        The cell's seed.
    device : str
        Torch device.
    """

    def __init__(self, spec: Valley, seed: int, device: str) -> None:
        self.spec, self.seed, self.device = spec, seed, device
        self.landscape = Landscape(spec.setting(seed), device)
        self.model: nn.Module = WeightRow(self.landscape.start).eval()

    def blocks(self) -> list[tuple[str, nn.Module]]:
        """Return the one layer, with its name."""
        return [("line", self.model.get_submodule("line"))]

    @cached_property
    def calibration(self) -> list[Tensor]:
        """One batch of inputs, of shape (n, d), in float32."""
        return [self.landscape.metric_factor(self.spec.metric).float()]

    def train_batches(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Yield the noise on the gradient for ever: of shape (d,), in float64."""
        generator = torch.Generator().manual_seed(seed)
        nothing = torch.zeros_like(self.landscape.start)
        while True:
            if self.spec.noise:
                drawn = torch.randn(len(nothing), generator=generator, dtype=nothing.dtype)
                yield self.spec.noise * drawn.to(nothing.device)
            else:
                yield nothing

    def evaluation_batches(self, limit: int | None = None) -> list[Tensor]:
        """Return one batch without noise: the loss is the same for all."""
        return [torch.zeros_like(self.landscape.start)]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Return f, and the weights' product with the noise, whose gradient is the noise."""
        weights = _weights_of(model)
        found = self.landscape.value(weights)
        return found if batch.ndim > 1 else found + batch @ weights.double()

    def forward(self, model: nn.Module, inputs: Tensor) -> object:
        """Run the layer on inputs of shape (n, d)."""
        return model(inputs)

    @staticmethod
    def tokens_of(batch: Tensor) -> int:
        """Return how many inputs a calibration batch has, and 1 for a batch of training."""
        return len(batch) if batch.ndim > 1 else 1

    def evaluate(self, model: nn.Module, metrics: tuple[str, ...]) -> Evaluation:
        """Measure a model.

        Parameters
        ----------
        model : nn.Module
            The model, with whatever weights it has now.
        metrics : tuple of str
            ``loss``; what it is made of is always measured too.

        Returns
        -------
        Evaluation
            One document; distances are in units of the weights. See `qbench.geometry.landscape.Parts`.
        """
        parts = self.landscape.parts(_weights_of(model))
        found = {
            "loss/landscape": parts.loss,
            "valley/normal_distance": parts.normal_distance,
            "valley/visible_distance": parts.visible_distance,
            "valley/visible_loss": parts.visible_loss,
            "valley/wall": parts.wall,
        }
        return Evaluation(found, [("landscape", 1, parts.loss)])

    def compare(self, latent: nn.Module, deployed: nn.Module) -> dict[str, float]:
        """Return what the bound on first entry is made of, at a moment of training.

        Parameters
        ----------
        latent, deployed : nn.Module
            The model with the weights w in training, and with their nearest levels q.

        Returns
        -------
        dict of str to float
            ``quantization_error``: ``|U_F^T (q - w)|``; ``gradient_norm``: ``|U_F^T grad f(q)|``; ``latent_distance``:
            ``|z_F(w)|``; ``inward_cosine``: that of ``-U_F^T grad f(q)`` and the way from q to the river in F, 0 where
            there is no such gradient.
        """
        w, q = (_weights_of(model).detach().double() for model in (latent, deployed))
        slope, (_, away, _) = self.landscape.normal_gradient(q), self.landscape.coordinates(q)
        lengths = float(slope.norm() * away.norm())
        return {
            "quantization_error": float(((q - w) @ self.landscape.flat).norm()),
            "gradient_norm": float(slope.norm()),
            "latent_distance": self.landscape.parts(w).normal_distance,
            "inward_cosine": float(slope @ away) / lengths if lengths else 0.0,
        }

    def facts(self) -> dict[str, Any]:
        """Return what a table must say of the landscape; there is no loss of knowing nothing."""
        dimension = len(self.landscape.start)
        return {
            "tolerance": self.spec.tolerance,
            "seeded": self.spec.is_seeded,
            "parameters": dimension,
            "calibration": f"{len(self.calibration[0])} inputs whose second moments are the {self.spec.metric} metric",
            "evaluation": "the landscape itself: its loss has no sampling error",
            "valley": self._valley(),
        }

    def _valley(self) -> dict[str, float]:
        own = self.landscape.setting
        (dimension, visible), flat = own.visible.shape, own.flat.shape[1]
        offset = self.landscape.parts(self.landscape.start).normal_distance
        found = {
            "dimension": dimension,
            "visible": visible,
            "flat": flat,
            "curvature": own.curvature,
            "eps": own.flatness,
            "rho": own.rho,
            "wall": own.wall,
            "offset": offset,
        }
        if flat == 1:
            found["worst_error_per_step"] = self.landscape.worst_error(1.0)
        else:
            found |= {
                "exit_step": theory.exit_step(own.rho, offset, flat),
                "compatible_step": theory.compatible_step(own.rho, flat),
                "hessian_exit_step": theory.hessian_exit_step(own.rho, offset, flat, visible, dimension),
            }
        return found


def _weights_of(model: nn.Module) -> Tensor:
    weight: Tensor = model.get_submodule("line").weight  # type: ignore[assignment]
    return weight[0]
